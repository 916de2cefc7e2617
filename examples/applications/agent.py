"""Run an agent for thousands of tool calls in one stream, without a restart.

A storekeeper gets tasks. For each one the model writes a call and reads its result. Some tasks ask
for a thing that was put on a shelf, long ago as well: what left the window is recalled before the
task, and taken out again when the step is done. Examples of calls are pinned.

Example: python examples/applications/agent.py --steps 10000
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from figures import mean, options, table

from streamingllm import Stream, StreamConfig, generate_text, load_model
from streamingllm.memory import Memory

PINNED = """A storekeeper answers each task with a call: put(thing, shelf) or find(thing, shelf).

Task: Put the copper kettle on shelf 31.
Call: put(copper kettle, 31)
Result: done
Task: Find the copper kettle.
Call: find(copper kettle, 31)
Result: right
Task: Put the green chair on shelf 74.
Call: put(green chair, 74)
Result: done
Task: Put the yellow vase on shelf 58.
Call: put(yellow vase, 58)
Result: done
Task: Find the green chair.
Call: find(green chair, 74)
Result: right
"""
COLOURS = ("red", "blue", "black", "white", "golden", "silver", "brown", "grey", "pink", "violet")
THINGS = (
    *("lamp", "drum", "mirror", "basket", "ladder", "violin", "anchor", "saddle", "globe", "bell"),
    *("carpet", "clock", "helmet", "kite", "lantern", "map", "needle", "oar", "pillow", "quilt"),
)
ASKS_EVERY = 4  # steps; the others store
MAX_STEP_TOKENS = 256  # that can be taken back after a step
RECALLED_TOKENS = 96


class Agent:
    """A stream that reads tasks and results, and writes calls."""

    def __init__(self, lm: Any, memory: Memory | None, cache_size: int) -> None:
        self.lm, self.memory = lm, memory
        prefix = lm.encode(PINNED)
        config = StreamConfig.with_cache_size(
            cache_size, len(prefix), max_rewind_tokens=MAX_STEP_TOKENS
        )
        self.stream = Stream(lm, config)
        self.stream.feed(prefix, logits="none")
        self.stream.compile()  # in the background
        self._unread = ""  # the last result, read together with the next task

    def step(self, task: str) -> str:
        """Return the call that the model writes for a task; the stream keeps task and call."""
        recalled = self._recalled(task)
        before = self.stream.num_seen_tokens
        self._feed(f"{self._unread}{recalled}Task: {task}\nCall:")
        text = "".join(generate_text(self.stream, self.lm, 24, stop_strings=["\n"]))
        if recalled:  # the step is fed again, as if nothing had been recalled
            self.stream.rewind(self.stream.num_seen_tokens - before)
            self._feed(f"{self._unread}Task: {task}\nCall:{text}\n")
        return text

    def read(self, task: str, result: str) -> None:
        """Take the result of a call, and remember the task."""
        position = self.stream.num_seen_tokens
        self._unread = f"Result: {result}\n"
        if self.memory is not None:
            self.memory.append("agent", "tool", task, position=position)

    def _recalled(self, task: str) -> str:
        """Return earlier tasks about the same thing that left the window."""
        if self.memory is None:
            return ""
        first = self.stream.num_seen_tokens - self.stream.config.window_size
        visible = range(max(0, first), 1 << 62)
        found = self.memory.search("agent", task, RECALLED_TOKENS, visible)[:2]
        lines = sorted((piece.position, piece.text) for piece in found if "Put" in piece.text)
        return "".join(f"Earlier task: {text}\n" for _, text in lines)

    def _feed(self, text: str) -> None:
        ids = self.lm.encode(text, add_special_tokens=False, is_continuation=True)
        self.stream.feed(ids, logits="none")


def task_of(number: int, shelves: dict[str, int], chosen: random.Random) -> tuple[str, str]:
    """Return the verb of a task and its thing, which is put on a shelf or known to be on one."""
    if number % ASKS_EVERY == ASKS_EVERY - 1:
        return "find", chosen.choice([*shelves])
    thing = f"{chosen.choice(COLOURS)} {chosen.choice(THINGS)}"
    shelves[thing] = chosen.randrange(10, 100)
    return "put", thing


def run(lm: Any, memory: Memory | None, settings: Any) -> dict[str, float]:
    """Run all steps, and return their figures."""
    chosen, shelves, put_at, times = random.Random(settings.seed), {}, {}, []
    agent, found = Agent(lm, memory, settings.cache_size), defaultdict(list)
    for number in range(settings.steps):
        verb, thing = task_of(number, shelves, chosen)
        is_put = verb == "put"
        task = f"Put the {thing} on shelf {shelves[thing]}." if is_put else f"Find the {thing}."
        start = time.perf_counter()
        is_right = agent.step(task).strip() == f"{verb}({thing}, {shelves[thing]})"
        agent.read(task, ("done" if is_put else "right") if is_right else "wrong")
        times.append(time.perf_counter() - start)
        if is_put:
            put_at[thing] = agent.stream.num_seen_tokens
            found["put calls that are right"].append(float(is_right))
        else:
            age = agent.stream.num_seen_tokens - put_at[thing]
            place = "visible" if age < agent.stream.config.window_size else "forgotten"
            found[f"find calls that are right, {place} things"].append(float(is_right))
    tenth = max(1, len(times) // 10)
    rows = {name: mean(values) for name, values in sorted(found.items())}
    rows["milliseconds a step, first tenth"] = 1000 * mean(times[:tenth])
    rows["milliseconds a step, last tenth"] = 1000 * mean(times[-tenth:])
    rows["tokens seen"] = agent.stream.num_seen_tokens
    rows["tokens visible"] = agent.stream.num_cached_tokens
    return rows


def main() -> None:
    """Run the agent with and without a memory."""
    settings = options("Run an agent without a restart.", steps=64, cache_size=384, seed=0)
    lm = load_model(settings.model, quantize=settings.quantize)
    rows = {"window": run(lm, None, settings)}
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
        rows["with memory"] = run(lm, memory, settings)
    print(table(f"{settings.steps} steps, no restart", rows))


if __name__ == "__main__":
    main()
