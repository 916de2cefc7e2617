"""How the coordinator and a peer's program talk: one JSON object a line, a reply to each request.

Runs under every peer's own Python, so it imports nothing but the standard library.
A request is `{"method": ..., "arguments": {...}}`; a reply `{"result": ...}` or `{"error": ...}`,
and `idle`: the processor and wall seconds that went by since the reply before.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

# The first steps of a turn find the caches of the processor full of another peer's weights.
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Settings:
    """What one contestant is asked to run.

    Args:
        weights: `int4`, `int8`, `bfloat16` or `float32`.
        rule: what happens when the cache is full; each program names its own.
        num_sink_tokens: first tokens that are kept.
        window_size: most recent tokens that are kept.
        threads: worker threads.
        text: token ids to fill the cache with, at least `cache_size`.
        checkpoint: folder with the model in transformers' layout.
        converted: folder with the model in the peers' own formats.
    """

    weights: str
    rule: str
    num_sink_tokens: int
    window_size: int
    threads: int
    text: list[int]
    checkpoint: str
    converted: str

    @property
    def cache_size(self) -> int:
        """Tokens in a full cache."""
        return self.num_sink_tokens + self.window_size


class Peer(ABC):
    """A language model that reads tokens into a cache and names the argmax next one."""

    packages: tuple[str, ...] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.token = 0

    @abstractmethod
    def clear(self) -> None:
        """Forget everything."""

    @abstractmethod
    def feed(self, tokens: list[int]) -> int:
        """Read tokens after those in the cache; return the argmax next one."""

    def crop(self, num_tokens: int) -> None:
        """Keep the first tokens of the text only; for rules that never evict."""
        self.clear()
        self.feed(self.settings.text[:num_tokens])

    def fill(self) -> None:
        """Fill the cache, so that every step from here on evicts."""
        self.clear()
        self.token = self.feed(self.settings.text[: self.settings.cache_size])

    def step(self) -> None:
        """Write one token."""
        self.token = self.feed([self.token])

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """Return the argmax `count` tokens after a prompt."""
        self.clear()
        tokens = [self.feed(prompt)]
        while len(tokens) < count:
            tokens.append(self.feed(tokens[-1:]))
        return tokens

    def decode(self, count: int) -> dict[str, Any]:
        """Time `count` steps, in milliseconds each."""
        if self.settings.rule == "dense":
            # A cache that only grows ends a turn at the size that the others have all along.
            self.crop(self.settings.cache_size - count - WARM_UP_STEPS)
        for _ in range(WARM_UP_STEPS):
            self.step()
        return {"milliseconds": [milliseconds(self.step) for _ in range(count)]}

    def read(self, tokens: list[int]) -> float:
        """Return the seconds that a prompt takes from an empty cache to its next token."""
        self.clear()
        return milliseconds(lambda: self.feed(tokens)) / 1000


def milliseconds(work: Callable[[], object]) -> float:
    """Time a call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def serve(peer_type: type[Peer]) -> None:
    """Answer requests on standard input until it ends; the first must be `open`."""
    # Native libraries write to standard output when they like: that goes to the log.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer: Peer | None = None
    clocks = time.process_time(), time.perf_counter()
    for line in sys.stdin:
        idle = time.process_time() - clocks[0], time.perf_counter() - clocks[1]
        request = json.loads(line)
        method, arguments = request["method"], request["arguments"]
        try:
            if method == "open":
                peer = peer_type(Settings(**arguments))
                result: Any = {name: version(name) for name in peer_type.packages}
            else:
                result = getattr(peer, method)(**arguments)
            reply = {"result": result, "idle": idle}
        except Exception as error:  # whatever a foreign library raises, the others go on
            traceback.print_exc()
            first_line = str(error).strip().partition("\n")[0]
            reply = {"error": f"{type(error).__name__}: {first_line}"}
        replies.write(json.dumps(reply) + "\n")
        clocks = time.process_time(), time.perf_counter()
