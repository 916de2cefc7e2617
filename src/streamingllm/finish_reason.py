"""Name the reasons for which a text ends, alike in streams, engines, sessions and commands."""

from __future__ import annotations

from enum import StrEnum


class FinishReason(StrEnum):
    """Name the end of a generated text; each member is its own string in JSON."""

    STOP = "stop"  # an eos token, a stop token, a stop string or the end of a grammar
    LENGTH = "length"  # max_new_tokens
    CANCELLED = "cancelled"  # the caller ended it
    DEADLINE = "deadline"  # its time was over
    FAILED = "failed"  # an error; the stream may have lost its last tokens
