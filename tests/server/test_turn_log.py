"""User text is in the log only if the operator asks for it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from streamingllm import LanguageModel
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.json_log import JsonFormatter
from streamingllm.server.settings import ServerSettings

_SECRET = "my secret words"


class Lines(logging.Handler):
    """Keep the lines that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        assert "\n" not in line
        self.lines.append(json.loads(line))

    def turns(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == "turn"]


@pytest.fixture
def kept() -> Iterator[Lines]:
    log, kept = logging.getLogger("streamingllm"), Lines()
    level = log.level
    log.addHandler(kept)
    log.setLevel(logging.DEBUG)
    yield kept
    log.removeHandler(kept)
    log.setLevel(level)


def chat(
    lm: LanguageModel, folder: Path, *, log_user_text: bool, requests: list[tuple[str, Any]]
) -> list[dict[str, Any]]:
    """Answers of a server with this setting."""
    settings = ServerSettings(
        data_dir=str(folder),
        cache_size=128,
        max_streams=2,
        max_pinned_tokens=60,
        compile=False,
        log_user_text=log_user_text,
    )

    async def answers() -> list[dict[str, Any]]:
        manager = assemble(lm, settings)
        transport = httpx2.ASGITransport(create_app(manager, settings))
        found = []
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path, body in requests:
                answer = await client.post(path, json=body, timeout=60)
                assert answer.status_code == 200, answer.text
                found.append(answer.json())
        await manager.close()
        return found

    return asyncio.run(answers())


def history(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[k % 2], "content": text} for k, text in enumerate(texts)]
    return {"messages": messages, "max_tokens": 3}


def test_without_the_setting_no_line_has_what_was_said(
    tiny_chat: LanguageModel, tmp_path: Path, kept: Lines
) -> None:
    requests = [
        ("/v1/chat/completions", history(_SECRET)),
        ("/v1/completions", {"prompt": _SECRET, "max_tokens": 3}),
    ]
    answered = chat(tiny_chat, tmp_path, log_user_text=False, requests=requests)
    first, second = kept.turns()
    assert first["session_id"] == answered[0]["streamingllm"]["session_id"]
    assert first["generated_tokens"] == answered[0]["usage"]["completion_tokens"]
    assert first["reason"] == answered[0]["choices"][0]["finish_reason"]
    assert second["session_id"] == ""
    assert not any("messages" in line or "answers" in line for line in kept.lines)
    assert _SECRET not in json.dumps(kept.lines)


def test_with_the_setting_a_turn_has_its_new_messages_and_its_answer(
    tiny_chat: LanguageModel, tmp_path: Path, kept: Lines
) -> None:
    opening = ("/v1/chat/completions", history(_SECRET))
    first = chat(tiny_chat, tmp_path, log_user_text=True, requests=[opening])
    text = first[0]["choices"][0]["message"]["content"]
    rest = [
        ("/v1/chat/completions", history(_SECRET, text, "and more")),
        ("/v1/completions", {"prompt": "Once", "max_tokens": 3}),
    ]
    second = chat(tiny_chat, tmp_path, log_user_text=True, requests=rest)
    turns = kept.turns()
    assert turns[0]["messages"] == [{"role": "user", "text": _SECRET}]
    assert turns[0]["answers"] == [{"role": "assistant", "text": text}]
    assert turns[1]["session_id"] == turns[0]["session_id"]
    assert turns[1]["messages"] == [{"role": "user", "text": "and more"}]
    assert turns[2]["messages"] == [{"role": "user", "text": "Once"}]
    assert turns[2]["answers"][0]["text"] == second[1]["choices"][0]["text"]


def failed(error: BaseException) -> logging.LogRecord:
    """A record of an error that another one led to."""
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as cause:
            raise error from cause
    except BaseException as raised:
        info = (type(raised), raised, raised.__traceback__)
        return logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), info)


@pytest.mark.parametrize("shows", [False, True])
def test_the_message_of_an_error_may_quote_a_user(shows: bool) -> None:
    line = JsonFormatter(shows_user_text=shows).format(failed(ValueError(f"no {_SECRET!r}")))
    found = json.loads(line)["traceback"]
    assert (_SECRET in found) == shows
    assert "ValueError" in found
    assert "No space left on device" in found  # said by the system
    assert Path(__file__).name in found
