"""The page of a gateway: chats through another server, and no buttons for what that cannot do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.gateway_process import gateway_to
from tests.gateway.talking_upstream import LONG, SENTENCE, talking_upstream
from tests.page.driver import Driver

pytest.importorskip("playwright", reason="playwright drives the browser")

LIMIT = 600
SECRET = "My hamster is called Napoleon."


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a gateway before a server that forgets at once."""
    options = ("--context-limit", str(LIMIT), "--answer-tokens", "64", "--recall-tokens", "100")
    folder = tmp_path_factory.mktemp("gateway")
    with talking_upstream() as url, gateway_to(url, folder, *options) as gateway:
        yield gateway


def message(page: Driver, text: str) -> Any:
    return page.page.locator(".message", has_text=text).first


def test_a_chat_rolls_over_greys_what_is_forgotten_and_shows_what_is_recalled(page: Driver) -> None:
    page.open(systemPrompt="Be brief.")
    page.say(SECRET)
    assert page.texts("assistant") == [SENTENCE]
    page.fill_window(LIMIT)
    hidden = message(page, SECRET)
    assert hidden.get_attribute("data-visibility") == "forgotten"
    assert page.visibilities()[-1] == "visible"
    assert "read or search it" in page.page.locator(".forgetting").inner_text()
    told = page.api("GET", f"/v1/sessions/{page.session_id}")
    legend = page.page.locator(".legend").inner_text()
    view = told["streamingllm"]
    assert f"{view['forgotten_tokens']} forgotten" in " ".join(legend.split())
    assert told["messages"][0]["text"] == "Be brief."

    page.say("Who is Napoleon?")
    note = page.page.locator(".message-assistant").last.locator(".recall")
    note.locator("summary").click()
    passage = note.locator(".passage", has_text=SECRET)
    assert "because of “napoleon”" in passage.inner_text()
    passage.click()
    focused = page.page.evaluate("document.activeElement.dataset.messageId")
    assert focused == hidden.get_attribute("data-message-id")


def test_sessions_are_listed_searched_renamed_and_deleted(page: Driver) -> None:
    page.open()
    page.say("The lighthouse is at Ushant.")
    first = page.session_id
    page.click("New session")
    page.say("The harbour is at Brest.")
    page.page.reload()
    page.page.locator(".message", has_text="Brest").wait_for()
    page.page.fill("#search", "ushant")
    page.wait_for_count(".session", 1)
    page.page.locator(".session-open").click()
    page.page.locator(".message", has_text="Ushant").wait_for()
    assert page.session_id == first
    page.say("And where else?")
    assert page.texts("user") == ["The lighthouse is at Ushant.", "And where else?"]
    page.click("Rename The lighthouse is at Ushant.")
    page.page.get_by_label("Title", exact=True).fill("Lights")
    page.click("Save the title")
    page.click("Delete Lights")
    page.click("Delete")
    page.page.locator(".none").wait_for()
    page.allowed_errors = re.compile("status of 404")
    page.open(f"/#/s/{first}")
    page.page.locator(".problem", has_text="is not there").wait_for()


def test_what_a_gateway_cannot_do_is_hidden(page: Driver) -> None:
    page.open(isHintSeen=False, apiKey="of-another-client")
    page.page.get_by_text("Another server answers.").wait_for()
    page.say("Hello there.")
    labels = {
        label.partition(" Hello")[0]
        for label in page.page.locator("button[aria-label]").evaluate_all(
            "buttons => buttons.map((button) => button.getAttribute('aria-label'))"
        )
    }
    assert {"Copy", "Forget for good", "Rename", "Delete"} <= labels
    server_only = {"Edit on a branch", "Regenerate on a branch", "Fork here", "Rewind to here"}
    assert not labels & {*server_only, "Pin as a fact", "Export", "Import a session"}
    assert page.page.get_by_role("switch").count() == 0
    page.page.locator(".title").click()
    page.page.keyboard.press("?")
    keys = page.page.locator("dl.keys").inner_text()
    assert "Next message" in keys
    for word in ("Fork", "Rewind", "streaming mode", "Regenerate"):
        assert word not in keys


def test_a_message_is_forgotten_for_good(page: Driver) -> None:
    page.open()
    page.say("The password is zanzibar.")
    message(page, "zanzibar").hover()
    page.click("Forget for good", within=".message-user")
    page.page.locator("form.edit").get_by_role("button", name="Forget for good").click()
    page.wait_for_count(".message-user", 0)
    stored = page.api("GET", f"/v1/sessions/{page.session_id}")["messages"]
    assert not any("zanzibar" in told["text"] for told in stored)


def test_a_stopped_answer_gives_the_question_back(page: Driver) -> None:
    page.open()
    page.start(f"A {LONG}, please.")
    page.page.locator(".message[data-running] .markdown").wait_for()
    page.click("Stop")
    page.wait_for_answer()
    assert page.page.input_value("#composer") == f"A {LONG}, please."
    detail = page.api("GET", f"/v1/sessions/{page.session_id}")
    assert [told["role"] for told in detail["messages"]] == ["system"]
