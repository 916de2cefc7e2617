"""Carry requests from a gateway to an engine, and its answer back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from streamingllm.errors import StreamingLLMError


class ReplicaDiedError(StreamingLLMError):
    """An engine died while it answered, or could not be reached."""


@dataclass(frozen=True)
class ForwardedRequest:
    """Hold a request over HTTP, whole.

    Args:
        method: of the request.
        path: decoded.
        raw_path: as it was sent.
        query: string after the question mark.
        headers: names in lower case, and values.
        body: of the request.
        client: address of the sender.
        server: address that it was sent to.
        scheme: http or https.
    """

    method: str
    path: str
    raw_path: bytes = b""
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = field(default=b"", repr=False)
    client: tuple[str, int] | None = None
    server: tuple[str, int | None] | None = None
    scheme: str = "http"

    def header(self, name: str) -> str:
        """Return the value of a header; "" if it was not sent."""
        wanted = name.encode()
        return next((v.decode("latin-1") for n, v in self.headers if n == wanted), "")


@dataclass(frozen=True)
class ForwardedAttempt:
    """Tell an engine what earlier attempts at a turn have done; see `TurnAttempt`.

    Args:
        turn_id: of the turn.
        started_seconds: since 1970, when the first attempt began.
        sent_ids: of the answer, which have left an engine.
        dead_holders: names of engines that died.
        may_be_journalled: whether an earlier attempt may have begun.
    """

    turn_id: str
    started_seconds: float
    sent_ids: tuple[int, ...] = ()
    dead_holders: frozenset[str] = frozenset()
    may_be_journalled: bool = False


@dataclass(frozen=True)
class ReplicaGreeting:
    """Name the engine that has taken a request, before it does anything."""

    holder: str


@dataclass(frozen=True)
class AnswerStart:
    """Begin an answer: its status and headers."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class AnswerPart:
    """Go on with an answer.

    Args:
        body: bytes; of a stream, one event.
        token_ids: of the answer, which the engine generated since the part before.
    """

    body: bytes
    token_ids: tuple[int, ...] = ()


ReplicaPart = ReplicaGreeting | AnswerStart | AnswerPart


class Replicas(Protocol):
    """Carry requests to engines; those of one key go to the same one, as far as possible."""

    def send(
        self, key: str, request: ForwardedRequest, attempt: ForwardedAttempt
    ) -> AsyncGenerator[ReplicaPart, None]:
        """Yield what an engine answers; closing the iterator tells it that the client has gone.

        Raises:
            ReplicaDiedError: the engine died, or none can be reached.
        """
        ...
