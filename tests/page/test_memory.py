"""The memory in the page: recalled passages, pinned facts, messages forgotten for good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from streamingllm import load_model
from tests.page.driver import Driver
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.serving import serving, small_app

pytest.importorskip("playwright", reason="playwright drives the browser")

CACHE_SIZE = 1000
SECRET = "My hamster is called Napoleon."


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with a memory, whose sessions see 1,000 tokens of one byte."""
    fields = {"cache_size": CACHE_SIZE, "max_pinned_tokens": 300, "max_rewind_tokens": 300}
    folder = tmp_path_factory.mktemp("memory")
    tiny_chat = load_model(write_tiny_chat(tmp_path_factory.mktemp("tiny-chat")), dtype="float64")
    with serving(small_app(tiny_chat, folder, memory=True, **fields)) as url:
        yield url


def last_recall(page: Driver) -> Any:
    return page.page.locator(".message-assistant").last.locator(".recall")


def message(page: Driver, text: str) -> Any:
    return page.page.locator(".message", has_text=text).first


def act(page: Driver, text: str, label: str) -> None:
    """Press a button under a message."""
    found = message(page, text)
    found.hover()
    found.get_by_role("button", name=label, exact=True).click()


def test_an_answer_says_what_was_recalled_and_shows_it_in_its_place(page: Driver) -> None:
    page.open()
    page.say(SECRET)
    assert last_recall(page).inner_text() == "Nothing recalled."
    page.fill_window(CACHE_SIZE + 250)
    assert message(page, SECRET).get_attribute("data-visibility") == "forgotten"

    page.say("Who is Napoleon?")
    note = last_recall(page)
    assert note.locator("summary").inner_text().startswith("Recalled ")
    note.locator("summary").click()
    passage = note.locator(".passage", has_text=SECRET).first
    assert "You · " in passage.inner_text()
    assert "because of “napoleon”" in passage.inner_text()
    passage.click()
    told = page.api("GET", f"/v1/sessions/{page.session_id}")["messages"][1]
    assert told["text"] == SECRET
    focused = "document.activeElement.dataset.messageId"
    assert page.page.evaluate(focused) == told["id"]
    page.page.wait_for_function(
        "id => { const box = document.querySelector(`[data-message-id='${id}']`)"
        ".getBoundingClientRect(); return box.top > 0 && box.bottom < innerHeight; }",
        arg=told["id"],
    )

    page.page.reload()
    page.page.wait_for_selector(".recall details")  # it stays with its answer
    stored = page.page.evaluate("JSON.stringify(localStorage)")
    assert "hamster" not in stored  # the texts stay on the server


def test_a_question_about_what_was_never_said_is_marked(page: Driver) -> None:
    page.open()
    page.say(SECRET)
    assert page.page.locator(".recall-not-found").count() == 0
    page.say("Where is the crocodile?")
    mark = last_recall(page).locator(".recall-not-found")
    assert "Neither visible nor found in this session: “crocodil”" in mark.inner_text()


def test_a_fact_is_pinned_corrected_and_unpinned(page: Driver) -> None:
    page.open()
    page.say(SECRET)
    act(page, SECRET, "Pin as a fact")
    page.page.get_by_label("Fact", exact=True).fill("The hamster is called Napoleon.")
    page.click("Pin the fact")
    facts = page.page.locator(".pinned-facts li")
    page.wait_for_count(".pinned-facts li", 1)
    before = page.api("GET", f"/v1/sessions/{page.session_id}")
    assert before["messages"][0]["text"].endswith("- The hamster is called Napoleon.")

    facts.get_by_role("button", name="Correct the fact").click()
    page.page.get_by_label("Fact", exact=True).fill("The hamster is called Wellington.")
    page.click("Correct the fact")
    facts.get_by_text("Wellington").wait_for()
    after = page.api("GET", f"/v1/sessions/{page.session_id}")
    assert [fact["text"] for fact in after["facts"]] == ["The hamster is called Wellington."]
    page.say("What is the hamster called?")

    facts.get_by_role("button", name="Unpin the fact").click()
    page.wait_for_count(".pinned-facts li", 0)
    assert page.api("GET", f"/v1/sessions/{page.session_id}")["facts"] == []


def test_a_fact_that_does_not_fit_says_so(page: Driver) -> None:
    page.allowed_errors = re.compile("status of 400")
    page.open()
    page.say(SECRET)
    act(page, SECRET, "Pin as a fact")
    page.page.get_by_label("Fact", exact=True).fill("many words " * 180)
    page.click("Pin the fact")
    page.page.locator(".problem", has_text="max_pinned_tokens=").wait_for()
    assert page.page.locator(".pinned-facts").count() == 0


def test_a_message_is_forgotten_for_good_once_that_is_confirmed(page: Driver) -> None:
    told = "My parrot is called Wellington."  # its title is in no other session
    page.open()
    page.say(told)
    page.say("Good night.")
    act(page, told, "Forget for good")
    page.click("Keep")
    assert told in page.texts("user")
    act(page, told, "Forget for good")
    page.page.locator(".message form").get_by_role("button", name="Forget for good").click()
    message(page, told).wait_for(state="detached")
    texts = [m["text"] for m in page.api("GET", f"/v1/sessions/{page.session_id}")["messages"]]
    assert told not in texts
    assert page.texts("user") == ["Good night."]
    assert told not in page.page.locator("body").inner_text()
    page.say("What is the hamster called?")
