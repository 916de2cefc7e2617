"""Drive the page as a person does, and watch for errors meanwhile."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.request import Request, urlopen

GREEDY = {"temperature": 0, "maxTokens": 12, "isHintSeen": True}


class Driver:
    """Hold a page of Chromium, with words for what it shows.

    Args:
        page: of Playwright.
        address: of the server.
    """

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.allowed_errors = re.compile(r"(?!)")
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def check(self) -> None:
        """Fail if there was an error, a breach of the policy, or a request to another host."""
        assert [e for e in self.errors if not self.allowed_errors.search(e)] == []
        assert self.hosts <= {self.address.split("/")[2], ""}

    def open(self, path: str = "/", **settings: Any) -> None:
        """Open the page with settings of a browser that was here before."""
        text = json.dumps({**GREEDY, **settings})
        self.page.add_init_script(
            "if (localStorage.getItem('streamingllm.settings') === null)"
            f" localStorage.setItem('streamingllm.settings', {json.dumps(text)})"
        )
        self.page.goto(self.address + path)
        self.page.wait_for_selector(".sessions, .none", state="attached")

    def say(self, text: str) -> None:
        """Send a message and wait until its answer is stored."""
        self.start(text)
        self.wait_for_answer()

    def start(self, text: str) -> None:
        """Send a message and wait until its answer begins."""
        self.page.fill("#composer", text)
        self.page.press("#composer", "Enter")
        self.page.wait_for_selector("[data-running]")

    def wait_for_answer(self) -> None:
        """Wait until no answer runs."""
        self.page.wait_for_selector("[data-running]", state="detached")

    def wait_for_count(self, selector: str, number: int) -> None:
        """Wait until the page has so many elements."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_count(number, timeout=20_000)

    def texts(self, role: str) -> list[str]:
        """Return the texts of all messages of a role."""
        found = self.page.locator(f".message-{role}").locator(".plain-text, .markdown, .empty")
        return [text.strip() for text in found.all_inner_texts()]

    def visibilities(self) -> list[str]:
        """Return how far each message is visible, the system prompt left out."""
        found = self.page.locator(".message[data-message-id]").all()
        return [message.get_attribute("data-visibility") for message in found]

    @property
    def session_id(self) -> str:
        """Id of the open session; "" if there is none."""
        found = re.search(r"#/s/(.+)$", self.page.url)
        return found[1] if found else ""

    def click(self, label: str, *, within: str = "body", last: bool = False) -> None:
        """Press a button of a label."""
        found = self.page.locator(within).get_by_role("button", name=label, exact=True)
        (found.last if last else found.first).click()

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server without the page."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = Request(self.address + path, data, headers, method=method)
        with urlopen(request) as answer:
            return json.load(answer)

    def fill_window(self, num_tokens: int) -> None:
        """Say long things until the model has seen so many tokens."""
        for number in range(100):
            detail = self.api("GET", f"/v1/sessions/{self.session_id}") if self.session_id else {}
            if detail and detail["seen_tokens"] > num_tokens:
                return
            self.say(f"Note {number}. " + "The tide rises and the boats go out again. " * 8)
        raise AssertionError(f"the session has not seen {num_tokens} tokens")
