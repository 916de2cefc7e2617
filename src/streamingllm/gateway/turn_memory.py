"""Remember the turns of sessions that another server answers, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from streamingllm.gateway.seen_messages import SeenMessages, Told
from streamingllm.memory.encoder import Encoder
from streamingllm.memory.memory import Memory
from streamingllm.memory.passages import passages, recalled_block
from streamingllm.memory.records import Recalled
from streamingllm.memory.words import date_text
from streamingllm.sessions.sqlite_database import SqliteDatabase

_HIDDEN_ROLES = ("system", "developer")  # clients send them with every request
_ANSWER = "assistant"


@dataclass(frozen=True)
class Turn:
    """Describe a request as the memory sees it.

    Args:
        session: of the memory.
        missing: messages that the memory does not have.
        replaced: id of the answer that the next answer replaces, because the turn is a retry.
        recalled: pieces that the request does not hold and its last message is about, in order.
        unknown_words: words of a question that nobody has said in the session, stemmed.
    """

    session: str
    missing: tuple[Told, ...]
    replaced: str | None
    recalled: tuple[Recalled, ...]
    unknown_words: tuple[str, ...]

    @property
    def block(self) -> str:
        """Text that stands before the last message; "" if nothing was recalled."""
        if not self.recalled:
            return ""
        return recalled_block(
            f"{date_text(piece.seconds)}, {piece.speaker or piece.role}: {piece.text.strip()}"
            for piece in self.recalled
        )

    def within(self, most: int, count_tokens: Callable[[str], int]) -> Turn:
        """Return the turn without the worst of what was recalled, so that its block fits."""
        turn = self
        while turn.recalled and count_tokens(turn.block) > most:
            worst = min(turn.recalled, key=lambda piece: piece.score)
            turn = replace(turn, recalled=tuple(one for one in turn.recalled if one is not worst))
        return turn


class TurnMemory:
    """Find out what is new in a request, recall for it, and keep it once it is answered.

    A request may hold all of a session, a part of it, or its last message only. Messages up to the
    last answer are known if the memory has as many of the same role and text. Those after it are
    new, unless the memory ends with them and their answer: then the request is a retry, and its
    answer replaces the one before. Methods may be called from any thread.

    Args:
        path: of the memory's database.
        budget_tokens: bound on the recalled texts of a turn, by an estimate.
        encoder: see `Memory`.

    Raises:
        SnapshotError: the file cannot be opened, or is no database of this release.
    """

    def __init__(self, path: Path, budget_tokens: int, encoder: Encoder | None = None) -> None:
        self._database = SqliteDatabase(path, "create", "wal")
        self._budget_tokens = budget_tokens
        try:
            self.memory = Memory(self._database, encoder=encoder)
            with self._database.transaction():
                self._seen = SeenMessages(self._database.connection)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def begin(
        self,
        session: str,
        messages: Sequence[Told],
        *,
        sent: Sequence[Told] | None = None,
        is_retry: bool = False,
    ) -> Turn:
        """Return what a request brings, before it is answered; nothing is written.

        Args:
            session: of the memory.
            messages: of the request.
            sent: those of them that the server gets; None for all.
            is_retry: the client says that it sends the request again.
        """
        said = [one for one in messages if one.role not in _HIDDEN_ROLES and one.text]
        first_new = max((n for n, one in enumerate(said, 1) if one.role == _ANSWER), default=0)
        history, new = said[:first_new], said[first_new:]
        with self._database.reading():
            replaced = self._replaced(session, history, new, is_retry)
            counts = Counter(said if replaced else history)
            known = {one: self._seen.numbers(session, one, n) for one, n in counts.items()}
        missing = _beyond(said if replaced else history, known)
        missing += () if replaced else new
        shown = Counter(messages if sent is None else sent)
        visible = {number for one, numbers in known.items() for number in numbers[: shown[one]]}
        asked = messages[-1].text if messages and messages[-1].role == "user" else ""
        found = self.memory.search(session, asked, self._budget_tokens, visible)
        recalled = sorted(passages(found), key=lambda piece: piece.number)
        unknown = self.memory.unknown_words(session, asked) if "?" in asked else []
        return Turn(session, tuple(missing), replaced, tuple(recalled), tuple(unknown))

    def end(self, turn: Turn, answer: str) -> None:
        """Keep the messages of a turn and its answer, all of them or none."""
        told = [*turn.missing, *([Told(_ANSWER, answer)] if answer else [])]
        with self._database.transaction():
            if turn.replaced is not None:
                self.forget(turn.session, turn.replaced)
            for one in told:
                message_id = f"msg_{uuid4().hex}"
                number = self._seen.add(turn.session, one, message_id)
                self.memory.append(
                    turn.session,
                    one.role,
                    one.text,
                    message_id=message_id,
                    position=number,
                    source="gateway",
                )

    def forget(self, session: str, message_id: str) -> bool:
        """Delete a message; tell whether it was there."""
        with self._database.transaction():
            self._seen.remove(session, message_id)
            return bool(self.memory.forget(session, [message_id]))

    def forget_session(self, session: str) -> None:
        """Delete all messages of a session."""
        with self._database.transaction():
            self._seen.remove_session(session)
            self.memory.forget_session(session)

    def _replaced(
        self, session: str, history: Sequence[Told], new: Sequence[Told], is_retry: bool
    ) -> str | None:
        """Return the id of the last answer if the memory ends with the new messages and it.

        The message before them must be the last one of the history, unless the client says that it
        tries again.
        """
        last = self._seen.last(session, len(new) + 2)
        if not new or len(last) < len(new) + 1:
            return None
        *told, (_, answer_id) = last
        digests = [digest for digest, _ in told]
        if digests[-len(new) :] != [one.digest for one in new]:
            return None
        before = digests[: -len(new)]
        context = [one.digest for one in history[-1:]]
        return answer_id if is_retry or before == context else None


def _beyond(said: Sequence[Told], known: dict[Told, list[int]]) -> list[Told]:
    """Return the messages that are said more often than they are known."""
    counts: Counter[Told] = Counter()
    found = []
    for one in said:
        counts[one] += 1
        if counts[one] > len(known[one]):
            found.append(one)
    return found
