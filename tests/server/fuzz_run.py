"""Send random requests to a server, several at once, and check each answer."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.fuzz_checks import AnswerChecks
from tests.server.fuzz_frames import Frames
from tests.server.fuzz_requests import FuzzRequest, FuzzRequests, KnownIds, likely_values
from tests.server.open_responses import specification

_SOCKETS = 0.01  # of all requests, each with some frames


@dataclass
class Tally:
    """Count what was sent and what came back.

    Args:
        by_status: answers by status; frames of sockets are counted under "frame".
        succeeded: answers of 200 by method and route, and sockets that stayed usable.
        problems: what broke a rule, with the number of its request.
    """

    by_status: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def fuzz_run(url: str, model: str, seed: int, deadline_seconds: float = 60.0) -> FuzzRun:
    """Return a run against a server, made of its own description and the specification's."""
    document = httpx2.get(f"{url}/openapi.json", timeout=deadline_seconds).json()
    known = KnownIds()
    likely = likely_values(model, known)
    requests = FuzzRequests(document, [specification()], likely, known, seed)
    checks, frames = AnswerChecks(document), Frames(likely, specification())
    return FuzzRun(url, requests, checks, frames, deadline_seconds)


class FuzzRun:
    """Send requests by number.

    Args:
        url: of the server.
        requests: made by their numbers.
        checks: of the answers.
        frames: of sockets.
        deadline_seconds: after which a request hangs.
    """

    def __init__(
        self,
        url: str,
        requests: FuzzRequests,
        checks: AnswerChecks,
        frames: Frames,
        deadline_seconds: float,
    ) -> None:
        self._url = url
        self._requests = requests
        self._checks = checks
        self._frames = frames
        self._deadline_seconds = deadline_seconds
        self.tally = Tally()

    async def send(self, numbers: Iterable[int], num_at_once: int = 8) -> None:
        """Send the requests of some numbers."""
        pending = iter(numbers)
        limits = httpx2.Limits(keepalive_expiry=1.0)  # well before the server closes a connection
        async with httpx2.AsyncClient(base_url=self._url, timeout=None, limits=limits) as http:

            async def work() -> None:
                for number in pending:
                    await self._one(http, number)

            async with asyncio.TaskGroup() as workers:
                for _ in range(num_at_once):
                    workers.create_task(work())

    async def _one(self, http: httpx2.AsyncClient, number: int) -> None:
        what = f"#{number}"
        if random.Random(f"socket/{number}").random() < _SOCKETS:
            task = asyncio.create_task(self._socket(number))
        else:
            request = self._requests.request(number)
            what = f"#{number} {request.method} {request.target[:200]}"
            task = asyncio.create_task(self._http(http, request))
        while not (await asyncio.wait({task}, timeout=self._deadline_seconds))[0]:
            if await self._answers_others():
                task.cancel()
                self.tally.problems.append(f"{what}: no answer in {self._deadline_seconds} s")
                await asyncio.wait({task})
                return
        try:
            task.result()
        except (AssertionError, KeyError, ValueError, httpx2.TransportError) as error:
            self.tally.problems.append(f"{what}: {type(error).__name__} {str(error)[:800]}")

    async def _answers_others(self) -> bool:
        """Tell a request that hangs from a server that gets no time from its machine."""
        try:
            async with httpx2.AsyncClient(base_url=self._url, timeout=5.0) as http:
                return (await http.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False

    async def _http(self, http: httpx2.AsyncClient, request: FuzzRequest) -> None:
        headers = {k: v.encode() for k, v in request.headers.items()}
        answer = await http.request(
            request.method, request.target, headers=headers, content=request.content or None
        )
        self.tally.by_status[str(answer.status_code)] += 1
        kind = answer.headers.get("content-type", "")
        if answer.status_code == 200:
            streamed = ", streamed" if kind.startswith("text/event-stream") else ""
            self.tally.succeeded[f"{request.method} {request.route}{streamed}"] += 1
        self._requests.known.learn(
            self._checks.check(request, answer.status_code, kind, answer.content)
        )

    async def _socket(self, number: int) -> None:
        rng = random.Random(number)
        path = rng.choice(self._frames.paths)
        try:
            async with connect(f"ws{self._url.removeprefix('http')}{path}") as socket:
                for frame in self._frames.some(rng, path):
                    await socket.send(frame)
                    self.tally.by_status["frame"] += 1
                probe, is_answer = self._frames.probe(path)
                await socket.send(probe)
                await self._until(socket, is_answer)
                self.tally.succeeded[f"WebSocket {path}"] += 1
        except (ConnectionClosed, InvalidStatus) as error:
            raise AssertionError(f"{path} was closed: {error}") from error

    async def _until(self, socket: Any, is_answer: Callable[[Any], bool]) -> None:
        """Read events until the answer to the probe."""
        while True:
            text = await socket.recv()
            assert "internal_error" not in text, text[:800]
            event = json.loads(text)
            if event["type"] == "error":
                assert event["error"]["message"], event
            if is_answer(event):
                return
