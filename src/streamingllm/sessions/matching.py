"""Find where the messages of a request go on from: in place, or on a branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamingllm.sessions.transcript import Message, Transcript

_ASSISTANT = "assistant"


@dataclass(frozen=True)
class Alignment:
    """Say which messages of a session stay, and which of a request are new.

    Args:
        num_kept: messages of the transcript that stay, the system prompt included.
        new: messages to feed.
        is_edit: whether messages of the transcript are replaced by others.
    """

    num_kept: int
    new: tuple[Message, ...]
    is_edit: bool = False


def num_system_messages(transcript: Transcript) -> int:
    """Return 1 if the transcript begins with a system prompt, else 0."""
    return int(len(transcript) > 0 and transcript[0].role == "system")


def align(transcript: Transcript, messages: Sequence[Message]) -> Alignment:
    """Compare what a client sends with a session that it names.

    A client sends its whole history, its last part, or only what is new. Messages are compared as
    they were sent. The last message is always new, so that there is something to answer.

    Args:
        transcript: of the session.
        messages: of the request, without the system prompt.
    """
    first, end = num_system_messages(transcript), len(transcript)
    if messages and messages[-1].role == _ASSISTANT and _ends_with(transcript, first, messages):
        return Alignment(end - 1, (messages[-1],))  # the last answer is to go on
    for num_known in range(len(messages) - 1, 0, -1):
        if _ends_with(transcript, first, messages[:num_known]):
            return Alignment(end, tuple(messages[num_known:]))
    if end == first or not any(message.role == _ASSISTANT for message in messages[:-1]):
        return Alignment(end, tuple(messages))
    num_common = 0
    while num_common < min(len(messages) - 1, end - first) and transcript[
        first + num_common
    ].is_same_as_sent(messages[num_common]):
        num_common += 1
    return Alignment(first + num_common, tuple(messages[num_common:]), is_edit=True)


def _ends_with(transcript: Transcript, first: int, messages: Sequence[Message]) -> bool:
    """Tell whether the transcript ends with these messages, or is their end."""
    length = min(len(messages), len(transcript) - first)
    if length == 0:
        return False
    return all(
        transcript[len(transcript) - back].is_same_as_sent(messages[len(messages) - back])
        for back in range(1, length + 1)
    )
