"""Edit, regenerate, rewind, fork: nothing that was said is lost but by a rewind."""

from __future__ import annotations

import pytest

from tests.page.driver import Driver

pytest.importorskip("playwright", reason="playwright drives the browser")


def test_an_edit_makes_a_branch_with_arrows_back(page: Driver) -> None:
    page.open()
    page.say("First question.")
    page.say("Second question.")
    old = page.session_id
    page.page.locator(".message-user").last.hover()
    page.click("Edit on a branch", last=True)
    page.page.fill("#edit", "Another question.")
    page.click("Send on a branch")
    page.page.wait_for_selector(".message-user:has-text('Another question.')")
    page.wait_for_answer()
    assert page.session_id != old
    assert page.texts("user") == ["First question.", "Another question."]
    arrows = page.page.locator(".arrows")
    assert arrows.inner_text().strip() == "2 / 2"

    page.click("Previous branch")
    page.page.wait_for_selector(".message-user:has-text('Second question.')")
    assert page.session_id == old
    assert page.texts("user") == ["First question.", "Second question."]
    assert page.page.locator(".arrows").inner_text().strip() == "1 / 2"
    page.click("Next branch")
    page.page.wait_for_selector(".message-user:has-text('Another question.')")


def test_regenerating_twice_makes_three_branches(page: Driver) -> None:
    page.open(temperature=1)
    page.say("Say something.")
    for total in (2, 3):
        page.page.locator(".message-assistant").last.hover()
        page.click("Regenerate on a branch", last=True)
        page.page.wait_for_selector(f".arrows:has-text('{total} / {total}')")
        page.wait_for_answer()
    assert page.texts("user") == ["Say something."]


def test_a_rewind_takes_back_what_follows(page: Driver) -> None:
    page.open()
    page.say("First question.")
    first = page.texts("assistant")
    seen = page.api("GET", f"/v1/sessions/{page.session_id}")["seen_tokens"]
    page.say("Second question.")
    page.page.locator(".message-assistant").first.hover()
    page.click("Rewind to here", within=".message-assistant")
    page.wait_for_count(".message-user", 1)
    assert page.texts("assistant") == first
    assert page.api("GET", f"/v1/sessions/{page.session_id}")["seen_tokens"] == seen
    page.say("Third question.")
    assert page.texts("user") == ["First question.", "Third question."]


def test_a_fork_shares_the_past_and_leaves_the_other_alone(page: Driver) -> None:
    page.open()
    page.say("First question.")
    page.say("Second question.")
    old = page.session_id
    page.page.locator(".message-assistant").first.hover()
    page.click("Fork here", within=".message-assistant")
    page.wait_for_count(".message-user", 1)
    assert page.session_id != old
    page.say("Something else.")
    assert page.texts("user") == ["First question.", "Something else."]
    messages = page.api("GET", f"/v1/sessions/{old}")["messages"]
    assert [m["text"] for m in messages if m["role"] == "user"] == [
        "First question.",
        "Second question.",
    ]
