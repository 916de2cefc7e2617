"""Find the place where an earlier attempt at a turn began, whether its answer is stored or not."""

from __future__ import annotations

from streamingllm.errors import SessionConflictError
from streamingllm.sessions.matching import Alignment
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_lease import JournalledTurn
from streamingllm.sessions.turn import TurnRequest

_ASSISTANT = "assistant"


def journalled_turn(
    request: TurnRequest, session: Session, alignment: Alignment
) -> JournalledTurn | None:
    """Return what is journalled before a turn begins; None for one that is not repeated."""
    if request.attempt is None or not session.is_stored:
        return None
    return JournalledTurn(
        request.attempt.turn_id,
        session.key,
        len(session.transcript),
        alignment.num_kept,
        len(alignment.new),
        alignment.is_edit,
    )


def alignment_again(turn: JournalledTurn, request: TurnRequest, session: Session) -> Alignment:
    """Return where a turn begins again; what an earlier attempt has stored of it is taken back.

    Messages of a request have the same ids in each attempt, so they tell what is stored.

    Args:
        turn: as it was journalled.
        request: of this attempt.
        session: its lock is held.

    Raises:
        SessionConflictError: the session has gone on since.
    """
    new = request.messages[len(request.messages) - turn.num_new :]
    if new and _is_stored(turn, new[-1].id, session):
        return Alignment(turn.num_kept, new)
    if len(session.transcript) == turn.num_messages:
        return Alignment(turn.num_kept, new, turn.is_edit)
    raise SessionConflictError(
        f"turn_id={turn.turn_id!r} began at message {turn.num_kept} of session "
        f"{session.id!r}, which has gone on since; read the session, then ask again"
    )


def _is_stored(turn: JournalledTurn, message_id: str, session: Session) -> bool:
    """Tell whether a session ends with a turn, with its answer or without."""
    number, end = turn.num_kept + turn.num_new - 1, len(session.transcript)
    if not number < end <= number + 2 or session.transcript[number].id != message_id:
        return False
    return end == number + 1 or session.transcript[end - 1].role == _ASSISTANT
