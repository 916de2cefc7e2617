"""Derive the summary of a session after a turn."""

from __future__ import annotations

import time
from dataclasses import replace

from streamingllm.errors import InputError
from streamingllm.sessions.store import SessionSummary, TurnCommit


def summary_after(stored: SessionSummary, turn: TurnCommit) -> SessionSummary:
    """Return the summary of a session after a turn.

    Raises:
        InputError: the turn does not fit to what is stored.
    """
    num_tokens = turn.num_tokens_before + len(turn.token_ids)
    fits = (
        0 <= turn.num_messages_before <= stored.num_messages
        and 0 <= turn.num_tokens_before <= stored.num_tokens
        and all(message.stop <= num_tokens for message in turn.messages)
    )
    if not fits:
        raise InputError(
            f"num_messages_before={turn.num_messages_before}, num_tokens_before="
            f"{turn.num_tokens_before} do not fit to the {stored.num_messages} messages and "
            f"{stored.num_tokens} token ids stored, or a message ends behind its tokens"
        )
    return replace(
        stored,
        epoch=stored.epoch + 1,
        num_messages=turn.num_messages_before + len(turn.messages),
        num_tokens=num_tokens,
        updated_seconds=time.time(),
        settings=stored.settings if turn.settings is None else dict(turn.settings),
        num_pinned_tokens=stored.num_pinned_tokens
        if turn.num_pinned_tokens is None
        else turn.num_pinned_tokens,
    )
