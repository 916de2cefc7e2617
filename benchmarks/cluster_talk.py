"""Sessions that talk to a cluster, each at its own pace, and note each answer and each silence."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import httpx2

PATH = "/v1/chat/completions"
_RETRY_SECONDS = 0.2
_MAX_RETRIES = 1000


@dataclass
class Turn:
    """Hold one answered turn.

    Args:
        question: that was asked.
        answer: whole.
        began: by a monotonic clock.
        ended: by the same.
        silence: longest time between two events, in seconds.
        was_repeated: whether an engine died under it.
        num_retries: requests that the client had to send again.
    """

    question: str
    answer: str
    began: float
    ended: float
    silence: float
    was_repeated: bool
    num_retries: int


@dataclass
class TalkingSession:
    """Ask numbered questions and keep the answers.

    Args:
        name: of the session.
        seed: of its answers and its pauses.
        think_seconds: mean pause between two turns.
        max_tokens: of an answer.
    """

    name: str
    seed: int
    think_seconds: float
    max_tokens: int
    turns: list[Turn] = field(default_factory=list)

    async def talk(self, http: httpx2.AsyncClient, is_over: threading.Event) -> None:
        """Ask until it is over; the last turn ends."""
        rng = random.Random(self.seed)
        await asyncio.sleep(rng.random() * self.think_seconds)
        while not is_over.is_set():
            await self.ask(http)
            await asyncio.sleep(rng.expovariate(1 / self.think_seconds))

    async def ask(self, http: httpx2.AsyncClient, question: str | None = None) -> None:
        """Ask one question, with one name for the turn, until it is answered."""
        number = len(self.turns)
        asked = question or f"{self.name} asks {number}?"
        body = question_body(asked, self.seed + number, self.max_tokens)
        headers = {"x-session-id": self.name, "idempotency-key": uuid4().hex}
        began = time.perf_counter()
        refusal: Exception | None = None
        for num_retries in range(_MAX_RETRIES):
            attempt = _Attempt(began)
            try:
                await attempt.run(http, body, headers)
            except (httpx2.TransportError, _RefusedError) as error:
                refusal = error
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            ended = time.perf_counter()
            self.turns.append(
                Turn(
                    asked,
                    "".join(attempt.texts),
                    began,
                    ended,
                    attempt.silence,
                    attempt.was_repeated or num_retries > 0,
                    num_retries,
                )
            )
            return
        raise RuntimeError(f"{self.name}: {asked!r} is not answered") from refusal


class _RefusedError(Exception):
    """The cluster said that it could not answer now."""


class _Attempt:
    """One request, whose silence counts from the beginning of the turn."""

    def __init__(self, began: float) -> None:
        self.texts: list[str] = []
        self.silence = 0.0
        self.was_repeated = False
        self._heard = began

    async def run(
        self, http: httpx2.AsyncClient, body: dict[str, object], headers: dict[str, str]
    ) -> None:
        is_done = False
        async with http.stream("POST", PATH, json=body, headers=headers) as response:
            self._hear()
            if response.status_code != 200:
                await response.aread()
                raise _RefusedError(response.text)
            self.was_repeated = response.headers.get("x-streamingllm-attempts", "1") != "1"
            async for line in response.aiter_lines():
                if line.startswith(":"):
                    self.was_repeated |= "repeated" in line
                elif line.startswith("data: "):
                    self._hear()
                    is_done = line == "data: [DONE]"
                    if not is_done:
                        self._take(_event(line[6:]))
        if not is_done:
            raise _RefusedError("the stream was cut")

    def _hear(self) -> None:
        now = time.perf_counter()
        self.silence, self._heard = max(self.silence, now - self._heard), now

    def _take(self, event: dict[str, object]) -> None:
        if "error" in event:
            raise _RefusedError(json.dumps(event))
        choices = event["choices"]
        assert isinstance(choices, list)
        self.texts += [choice["delta"].get("content") or "" for choice in choices]


def _event(text: str) -> dict[str, object]:
    try:
        event: dict[str, object] = json.loads(text)
    except json.JSONDecodeError:  # the connection ended within the line
        raise _RefusedError("the stream was cut") from None
    return event


def question_body(question: str, seed: int, max_tokens: int) -> dict[str, object]:
    """Return a request whose answer is drawn, the same each time."""
    return {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "seed": seed,
        "stream": True,
    }


def quantiles(values: Sequence[float]) -> dict[str, float | int]:
    """Return p50, p95 and the greatest of some seconds."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)

    return {"count": len(ordered), "p50": at(0.5), "p95": at(0.95), "max": round(ordered[-1], 4)}
