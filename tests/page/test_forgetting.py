"""The picture of the stream, forgotten messages, and the limit without streaming mode."""

from __future__ import annotations

import re

import pytest

from tests.page.conftest import CACHE_SIZE
from tests.page.driver import Driver

pytest.importorskip("playwright", reason="playwright drives the browser")


def test_forgotten_messages_turn_grey_and_say_why(page: Driver) -> None:
    page.open()
    page.say("Remember the word apple.")
    assert page.page.locator(".forgetting").count() == 0
    page.fill_window(CACHE_SIZE + 250)
    seen = page.visibilities()
    assert seen == sorted(seen, key=["forgotten", "partly", "visible"].index)
    assert seen[0] == "forgotten"
    assert seen[-1] == "visible"
    line = page.page.locator(".forgetting")
    assert "it no longer sees" in line.inner_text()
    first = page.page.locator(".message").first
    assert first.locator(".tag").get_attribute("title") == "The model no longer sees this."
    assert first.get_attribute("aria-label") == "You, forgotten"


def test_the_picture_counts_as_the_server_does(page: Driver) -> None:
    page.open()
    page.fill_window(CACHE_SIZE + 100)
    view = page.api("GET", f"/v1/sessions/{page.session_id}")["streamingllm"]
    label = page.page.locator(".stream-picture").get_attribute("aria-label")
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", label)]
    assert numbers == [
        view["seen_tokens"],
        view["pinned_tokens"],
        view["forgotten_tokens"],
        view["visible_tokens"] - view["pinned_tokens"],
        CACHE_SIZE - view["visible_tokens"],
    ]

    def width(name: str) -> float:
        return float(page.page.locator(f".stream-picture .stream-{name}").get_attribute("width"))

    assert width("forgotten") / width("visible") == pytest.approx(
        view["forgotten_tokens"] / (view["visible_tokens"] - view["pinned_tokens"]), rel=0.05
    )


def test_without_streaming_mode_the_conversation_meets_its_limit(page: Driver) -> None:
    page.allowed_errors = re.compile("status of 400")
    page.open()
    page.page.get_by_role("switch", name="Streaming mode").click()
    text = "The tide rises and the boats go out again. " * 8
    problem = page.page.locator(".problem")
    for _ in range(20):
        page.page.fill("#composer", text)
        page.page.press("#composer", "Enter")
        page.page.wait_for_selector("[data-running], .problem")
        page.wait_for_answer()
        if problem.count():
            break
    assert "streaming mode is off" in problem.inner_text()
    assert page.page.input_value("#composer") == text.strip()
    page.click("Switch streaming mode on")
    problem.wait_for(state="detached")
    page.page.press("#composer", "Enter")
    page.page.wait_for_selector("[data-running]")
    page.wait_for_answer()
    detail = page.api("GET", f"/v1/sessions/{page.session_id}")
    assert detail["streamingllm"]["forgotten_tokens"] >= 0
    assert problem.count() == 0
