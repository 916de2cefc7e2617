"""Describe an attempt at a turn that may be repeated elsewhere: its ids, its time, its past."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from uuid import uuid4

_ID_HEX = 32


def _ignore(_: Sequence[int]) -> None:
    """Note nothing."""


@dataclass(eq=False)
class TurnAttempt:
    """Describe an attempt at a turn; all attempts make the same ids and the same tokens.

    Args:
        turn_id: of the turn, the same for each attempt; nobody can guess it.
        started_seconds: since 1970, when the first attempt began.
        sent_ids: of the answer, which an earlier attempt has sent; the answer begins with them.
        dead_holders: of leases, which answer no more.
        may_be_journalled: whether an earlier attempt may have begun.
        on_ids: told of the ids of the answer as they are generated.
    """

    turn_id: str
    started_seconds: float
    sent_ids: tuple[int, ...] = ()
    dead_holders: frozenset[str] = frozenset()
    may_be_journalled: bool = False
    on_ids: Callable[[Sequence[int]], None] = _ignore
    _counts: Counter[str] = field(default_factory=Counter)

    def new_hex(self, kind: str) -> str:
        """Return 32 digits for the next id of a kind."""
        number = self._counts[kind]
        self._counts[kind] += 1
        return hex_of(self.turn_id, kind, number)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make this the attempt of the body, and of the tasks that begin in it."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[TurnAttempt | None] = ContextVar("turn_attempt", default=None)


def current_attempt() -> TurnAttempt | None:
    """Return the attempt that runs here; None where turns are not repeated."""
    return _current.get()


def hex_of(turn_id: str, kind: str, number: int = 0) -> str:
    """Return the digits that each attempt at a turn gives the id of a kind and a number."""
    name = f"{kind}\0{number}".encode()
    key = blake2b(turn_id.encode()).digest()
    return blake2b(name, digest_size=_ID_HEX // 2, key=key).hexdigest()


def new_id(prefix: str, num_digits: int = _ID_HEX, *, purpose: str = "") -> str:
    """Return an id that nothing else has, the same in each attempt at a turn.

    Args:
        prefix: of the id.
        num_digits: after the prefix.
        purpose: counts apart from other ids of the prefix, which an attempt may not need.
    """
    attempt = current_attempt()
    digits = uuid4().hex if attempt is None else attempt.new_hex(prefix + purpose)
    return prefix + digits[:num_digits]


def turn_seconds() -> float:
    """Return the time since 1970, of the first attempt within a turn that may be repeated."""
    attempt = current_attempt()
    return time.time() if attempt is None else attempt.started_seconds
