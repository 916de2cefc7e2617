"""Log each turn, with what was said only if the operator asks for it."""

from __future__ import annotations

import logging
from typing import Any

from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn_report import TurnReport

_log = logging.getLogger("streamingllm.turns")


class TurnLog:
    """Write a line for each turn that has ended.

    Args:
        shows_user_text: write messages and answers too (`log_user_text`).
    """

    def __init__(self, *, shows_user_text: bool) -> None:
        self._shows_user_text = shows_user_text

    def write(self, report: TurnReport) -> None:
        """Write the line of a turn."""
        facts: dict[str, Any] = {
            "owner": report.owner,
            "session_id": report.session_id,
            "reason": report.reason,
            "generated_tokens": report.num_generated_tokens,
            "evicted_tokens": report.num_evicted_tokens,
            "first_text_seconds": _rounded(report.first_text_seconds),
            "seconds_per_token": _rounded(report.seconds_per_token),
        }
        if self._shows_user_text:
            facts["messages"] = [_fields(message) for message in report.messages]
            facts["answers"] = [_fields(message) for message in report.answers]
        _log.info("turn", extra={"facts": facts})


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "text": message.text}
    if message.tool_calls:
        calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        fields["tool_calls"] = calls
    return fields


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
