"""First run, chat, stop, reload, continue: a conversation as a person has it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.page.cutting_proxy import CuttingProxy
from tests.page.driver import Driver

pytest.importorskip("playwright", reason="playwright drives the browser")


def test_the_first_run_shows_a_hint_that_can_be_put_away(page: Driver) -> None:
    while sessions := page.api("GET", "/v1/sessions")["data"]:
        for session in sessions:
            page.api("DELETE", f"/v1/sessions/{session['id']}")
    page.open(isHintSeen=False)
    hint = page.page.locator(".hint")
    assert "never end" in hint.inner_text()
    page.click("Understood")
    hint.wait_for(state="detached")
    page.page.reload()
    page.page.wait_for_selector(".welcome")
    assert page.page.locator(".hint").count() == 0


def test_an_answer_streams_and_is_stored(page: Driver) -> None:
    page.open()
    page.start("Name three colours.")
    page.page.wait_for_selector("[data-running] .markdown")
    assert page.session_id
    page.wait_for_answer()
    assert page.texts("user") == ["Name three colours."]
    stored = page.api("GET", f"/v1/sessions/{page.session_id}")["messages"]
    assert [message["role"] for message in stored] == ["system", "user", "assistant"]
    facts = page.page.locator(".message-assistant .facts").inner_text()
    assert f"{stored[-1]['num_tokens']} tokens" in facts
    assert " s " in facts
    assert page.page.locator(".title").inner_text() == "Name three colours."


def test_the_operators_disclosure_is_shown_with_the_first_answer(page: Driver) -> None:
    page.open()
    page.say("Hello.")
    assert page.page.locator(".notice").all_inner_texts() == ["You talk to a program."]
    page.page.reload()
    page.page.wait_for_selector(".notice")


def test_stop_ends_the_answer_and_keeps_what_is_there(page: Driver) -> None:
    page.open(maxTokens=2000)
    page.start("Tell me a very long story about the sea.")
    page.page.wait_for_selector("[data-running] .markdown")
    page.click("Stop")
    page.wait_for_answer()
    kept = page.texts("assistant")
    assert len(kept) == 1
    assert kept[0] not in ("", "(no text)")
    assert page.page.locator(".tag-ending").inner_text() == "stopped"
    page.page.reload()
    page.page.wait_for_selector(".message-assistant")
    assert page.texts("assistant") == kept
    assert not page.api("GET", f"/v1/sessions/{page.session_id}")["is_running"]


def test_an_answer_survives_a_reload_and_goes_on(page: Driver) -> None:
    page.open(maxTokens=150)
    page.start("Tell me a very long story about the sea.")
    page.page.wait_for_selector("[data-running] .markdown")
    before = page.texts("assistant")[-1]
    page.page.reload()
    page.page.wait_for_selector("[data-running] .markdown, .message-assistant .markdown")
    page.wait_for_answer()
    answers = page.texts("assistant")
    assert len(answers) == 1
    assert answers[0].startswith(before.rstrip("\ufffd")[:20])
    stored = page.api("GET", f"/v1/sessions/{page.session_id}")["messages"]
    assert stored[-1]["num_tokens"] > 100


def test_an_answer_survives_a_lost_connection(browser: Any, address: str) -> None:
    context = browser.new_context()
    with CuttingProxy(int(address.rsplit(":", 1)[1])) as proxy:
        page = Driver(context.new_page(), proxy.address)
        page.allowed_errors = re.compile("net::ERR_")
        asked: list[str] = []
        page.page.on("request", lambda request: asked.append(request.url))
        page.open(maxTokens=150)
        page.start("Tell me a very long story about the sea.")
        page.page.wait_for_selector("[data-running] .markdown")
        before = page.texts("assistant")[-1]
        assert proxy.cut() > 0
        page.wait_for_answer()
        answers = page.texts("assistant")
        assert len(answers) == 1
        assert answers[0].startswith(before[:20])
        assert page.page.locator(".problem").count() == 0
        assert any("starting_after=" in url for url in asked)
        stored = page.api("GET", f"/v1/sessions/{page.session_id}")["messages"]
        assert stored[-1]["num_tokens"] > 100
        page.check()
    context.close()


def test_another_page_watches_the_answer(page: Driver) -> None:
    page.open(maxTokens=150)
    page.start("Tell me a very long story about the sea.")
    page.page.wait_for_selector("[data-running] .markdown")
    other_context = page.page.context.browser.new_context()
    other = Driver(other_context.new_page(), page.address)
    other.open(f"/#/s/{page.session_id}")
    page.wait_for_answer()
    other.page.wait_for_selector(".message-assistant .markdown")
    other.page.get_by_role("button", name="Send", exact=True).wait_for()
    assert other.texts("assistant") == page.texts("assistant")
    other.check()
    other_context.close()


def test_the_page_asks_for_a_key_and_sends_it(page: Driver) -> None:
    def want_key(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.continue_()
        else:
            error = {"error": {"message": "a key is needed", "code": "invalid_api_key"}}
            route.fulfill(status=401, json=error)

    page.allowed_errors = re.compile("status of 401")
    page.page.route("**/v1/**", want_key)
    page.page.goto(page.address)
    page.click("Open settings", within=".problem")
    page.page.get_by_label("API key").fill("secret")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".sessions, .none")
    page.say("Hello.")
    assert len(page.texts("assistant")) == 1


def test_an_answer_that_reached_its_limit_can_be_continued(page: Driver) -> None:
    page.open(maxTokens=5)
    page.say("Tell me a long story about the sea.")
    assert page.page.locator(".tag-ending").inner_text() == "reached its limit"
    page.click("Continue")
    page.page.wait_for_selector(".message-user:has-text('Continue.')")
    page.wait_for_answer()
    assert len(page.texts("assistant")) == 2


def test_markdown_is_shown_and_code_can_be_copied(page: Driver) -> None:
    text = (
        "**Bold** <img src=x onerror=alert(1)>\n\n```python\nprint('hi')\n```\n[a](https://x.test)"
    )
    made = page.api(
        "POST",
        "/v1/sessions",
        {"messages": [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": text}]},
    )
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.open(f"/#/s/{made['id']}")
    shown = page.page.locator(".message-assistant .markdown")
    assert shown.locator("strong").inner_text() == "Bold"
    assert shown.locator("img").count() == 0
    assert shown.locator(".hljs-string").inner_text() == "'hi'"
    assert shown.locator("a").get_attribute("rel") == "noopener noreferrer"
    page.click("Copy", within="pre")
    assert page.page.evaluate("navigator.clipboard.readText()") == "print('hi')"
