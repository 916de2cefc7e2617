"""Ask for lines that left the window, without a memory and with one, in a chat like StreamEval.

A user tells numbered lines, a few a message, and asks for one at a distance. The default model
completes the line. Recalled texts roll out of the window, or are taken out after the answer.

Run: `python -m benchmarks.recall_lines --json benchmarks/results/recall-lines.json`

Source: Xiao et al., StreamingLLM, ICLR 2024, section 4.3. Deviations: a chat template; the answers
stay in the stream; the integers have four digits.
"""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchmarks.progress import shown
from streamingllm import LanguageModel, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.server.assembly import assemble
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import Identity, TextDelta, TurnEnded, TurnRequest
from streamingllm.stream.sampling import SamplingParams

Arm = Literal["window", "rollout", "rewind"]
ARMS: tuple[Arm, ...] = ("window", "rollout", "rewind")
DISTANCES = (5, 60, 100)
LINES_OF_MESSAGE = 4
FIRST_LINES = 104
SYSTEM = "You remember lines of a record."
HERE = Identity("session", "record")
FEW_TOKENS = SamplingParams(max_new_tokens=6)


class Record:
    """Make lines with random integers, and questions about them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.values: list[int] = []

    def tell(self, count: int) -> str:
        """Add lines and return them."""
        lines = []
        for _ in range(count):
            self.values.append(self._random.randint(1000, 9999))
            lines.append(
                f"The REGISTER_CONTENT in line {len(self.values) - 1} is <{self.values[-1]}>"
            )
        return "\n".join(lines)


def told_by(record: Record) -> list[Message]:
    """Return messages that tell some further lines."""
    lines = record.tell(LINES_OF_MESSAGE)
    return [Message.of_text("user", lines), Message.of_text("assistant", "Noted.")]


async def ask(manager: SessionManager, record: Record, line: int) -> tuple[bool, bool]:
    """Tell some lines, ask for an older one; return whether it was answered, and recalled."""
    await manager.append("", "record", told_by(record))
    asked = f"The REGISTER_CONTENT in line {line} is"
    said = (
        Message.of_text("user", f"Query: {asked}"),
        Message.of_text("assistant", f"{asked} <"),
    )
    text, recalled = "", False
    request = TurnRequest("", said, FEW_TOKENS, identity=HERE, system_prompt=SYSTEM)
    async for event in manager.respond(request):
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, TurnEnded) and event.view.recall is not None:
            wanted = f"line {line} is <{record.values[line]}>"
            recalled = any(wanted in part.text for part in event.view.recall.texts)
    number = re.search(r"\d+", text)
    return number is not None and int(number[0]) == record.values[line], recalled


async def measure(
    lm: LanguageModel, arm: Arm, *, rounds: int, cache_size: int, seed: int
) -> dict[str, Any]:
    """Run one arm; return the share of right answers by distance."""
    record, right, recalled = Record(seed), defaultdict(list), defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        settings = ServerSettings(
            data_dir=str(Path(folder)),
            cache_size=cache_size,
            max_streams=1,
            compile=False,
            memory=arm != "window",
            recall_removal="rewind" if arm == "rewind" else "rollout",
            max_rewind_tokens=cache_size // 2,
        )
        manager = assemble(lm, settings)
        try:
            await manager.create("", session_id="record", system_prompt=SYSTEM)
            for _ in range(FIRST_LINES // LINES_OF_MESSAGE):
                await manager.append("", "record", told_by(record))
            start = time.perf_counter()
            for number in shown(range(rounds), arm, rounds):
                distance = DISTANCES[number % len(DISTANCES)]
                line = len(record.values) + LINES_OF_MESSAGE - distance
                is_right, is_recalled = await ask(manager, record, line)
                right[distance].append(is_right)
                recalled[distance].append(is_recalled)
            seconds = (time.perf_counter() - start) / rounds
        finally:
            await manager.close()
    return {
        "right": {d: round(sum(found) / len(found), 3) for d, found in right.items()},
        "recalled": {d: round(sum(found) / len(found), 3) for d, found in recalled.items()},
        "queries_per_distance": rounds // len(DISTANCES),
        "seconds_per_turn": round(seconds, 3),
    }


def main(
    rounds: Annotated[int, typer.Option(help="Queries of each arm.")] = 60,
    cache_size: Annotated[int, typer.Option(help="Tokens that the session sees.")] = 1024,
    seed: Annotated[int, typer.Option(help="Of the lines.")] = 0,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Compare the window alone with both ways of recall."""
    lm = load_model(dtype="float32")
    arms = {
        arm: asyncio.run(measure(lm, arm, rounds=rounds, cache_size=cache_size, seed=seed))
        for arm in ARMS
    }
    sizes = {"cache_size": cache_size, "lines_before": FIRST_LINES, "distances": DISTANCES}
    write_json(json, {**sizes, "arms": arms, **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
