"""Search, rename, delete, export, import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.page.driver import Driver

pytest.importorskip("playwright", reason="playwright drives the browser")


def _make(page: Driver, title: str, *texts: str) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "text": text} for n, text in enumerate(texts)]
    made = page.api("POST", "/v1/sessions", {"metadata": {"title": title}, "messages": messages})
    return str(made["id"])


def test_search_finds_words_of_messages(page: Driver) -> None:
    _make(page, "One", "The zebra sleeps.", "Yes.")
    _make(page, "Two", "The quagga runs.", "No.")
    page.open()
    page.page.fill("#search", "quagga")
    page.wait_for_count(".session", 1)
    assert page.page.locator(".session-title").inner_text().strip() == "Two"
    page.page.fill("#search", "xylophonist")
    page.page.wait_for_selector("text=Nothing found.")
    page.page.fill("#search", "")
    page.page.wait_for_selector(".session-title:has-text('One')")


def test_a_session_is_renamed(page: Driver) -> None:
    made = _make(page, "Old name", "Hi", "Hello")
    page.open(f"/#/s/{made}")
    page.page.locator(".session", has_text="Old name").first.hover()
    page.click("Rename Old name")
    page.page.fill(".session-form input", "New name")
    page.page.press(".session-form input", "Enter")
    page.page.wait_for_selector(".title:has-text('New name')")
    assert page.api("GET", f"/v1/sessions/{made}")["metadata"] == {"title": "New name"}


def test_a_session_is_deleted_after_a_question(page: Driver) -> None:
    made = _make(page, "Short lived", "Hi", "Hello")
    page.open(f"/#/s/{made}")
    page.page.locator(".session", has_text="Short lived").first.hover()
    page.click("Delete Short lived")
    page.click("Keep")
    assert page.api("GET", f"/v1/sessions/{made}")["id"] == made
    page.page.locator(".session", has_text="Short lived").first.hover()
    page.click("Delete Short lived")
    page.click("Delete", within=".session-form")
    page.page.wait_for_selector(".welcome")
    listed = page.api("GET", "/v1/sessions?limit=100")["data"]
    assert made not in [session["id"] for session in listed]


def test_a_session_is_exported_and_imported(page: Driver, tmp_path: Path) -> None:
    made = _make(page, "To keep", "Hi", "Hello")
    page.open(f"/#/s/{made}")
    page.page.locator(".session", has_text="To keep").first.hover()
    with page.page.expect_download() as download:
        page.click("Export To keep")
    file = tmp_path / "session.json"
    download.value.save_as(file)
    assert download.value.suggested_filename == "To keep.json"
    assert json.loads(file.read_text())
    page.page.set_input_files("#import", file)
    page.page.wait_for_url(lambda url: not url.endswith(made))
    page.page.wait_for_selector(".message-assistant:has-text('Hello')")
    assert page.texts("user") == ["Hi"]
    assert page.session_id != made
