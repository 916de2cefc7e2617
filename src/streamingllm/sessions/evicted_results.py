"""Find the results of tools that have left the window of a session."""

from __future__ import annotations

from streamingllm.sessions.recall import EvictedResult, estimated_tokens
from streamingllm.sessions.session import Session
from streamingllm.sessions.transcript import Transcript

_MAX_RESULTS = 4
_MAX_MESSAGES_BACK = 32  # from a result to its call


def evicted_results(session: Session) -> tuple[EvictedResult, ...]:
    """Return the newest results that left the window since the last turn, in their order."""
    transcript, edge = session.transcript, session.visible_positions.start
    number = transcript.first_message_from(session.num_told_tokens)
    found = []
    while number is not None and number < len(transcript) and transcript[number].first < edge:
        message = transcript[number]
        if message.role == "tool":
            name = message.name or _name_of_call(transcript, number)
            # Marks join messages of one turn, whose first one then has the tokens of all.
            num_tokens = message.stop - message.first or estimated_tokens(message.text)
            found.append(EvictedResult(message.id, name, num_tokens))
        number += 1
    return tuple(found[-_MAX_RESULTS:])


def _name_of_call(transcript: Transcript, number: int) -> str:
    """Return the name of the function whose result a message is; "" if there is no such call."""
    for at in range(number - 1, max(-1, number - 1 - _MAX_MESSAGES_BACK), -1):
        for call in transcript[at].tool_calls:
            if call.id == transcript[number].tool_call_id:
                return call.name
    return ""
