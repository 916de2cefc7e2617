"""Let 200 sessions talk over a budget that holds 20, and bring sessions back from every tier.

Run: `python -m benchmarks.tiers --sessions 200 --json benchmarks/results/tiers.json`

The caps of the tiers are sampled while the sessions talk, and each session's greedy answers are
compared with those of a run alone. The model is tiny and random unless another one is named.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.progress import shown
from streamingllm import LanguageModel, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.server.assembly import assemble
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.turn import Identity
from streamingllm.stream.sampling import SamplingParams
from tests.reference.tiny_chat import write_tiny_chat
from tests.sessions.managers import request, say

NUM_SLOTS = 8
TURNS = 5
GREEDY = SamplingParams(max_new_tokens=12)
_ALL = 1 << 40


class Tiers:
    """Measure managers of one model.

    Args:
        lm: to serve.
        cache_size: of a session.
        folder: of the data of all managers.
        opening_words: that each session begins with.
    """

    def __init__(
        self, lm: LanguageModel, cache_size: int, folder: Path, opening_words: int = 0
    ) -> None:
        self._lm = lm
        self._cache_size = cache_size
        self._folder = folder
        self._opening = "word " * opening_words

    @asynccontextmanager
    async def manager(self, name: str, host: int, disk: int) -> AsyncIterator[SessionManager]:
        """A manager of the data of that name."""
        settings = ServerSettings(
            data_dir=str(self._folder / name),
            cache_size=self._cache_size,
            max_streams=NUM_SLOTS,
            max_waiting=10_000,
            host_memory=host,
            disk=disk,
            compile=False,
        )
        manager = assemble(self._lm, settings)
        try:
            yield manager
        finally:
            await manager.close()

    async def bytes_of_state(self) -> int:
        """Bytes of one session on the host, at most."""
        async with self.manager("size", _ALL, _ALL) as manager:
            return (await manager.engine.stats()).bytes_per_stream

    async def talk(self, manager: SessionManager, name: str, number: int) -> list[str]:
        """Answers of a session."""
        return [
            await say(
                manager,
                f"{'' if turn else self._opening}Session {number}, question {turn}?",
                identity=Identity("session", name),
                params=GREEDY,
            )
            for turn in range(TURNS)
        ]

    async def crowd(self, num_sessions: int, state: int) -> dict[str, Any]:
        """Let sessions talk at once over slots, a host for 6 and a disk for 6."""
        host, disk = 6 * state, 6 * state
        most, samples, passed = {"host": 0, "disk": 0}, 0, 0
        async with self.manager("crowd", host, disk) as manager:
            talks = [
                asyncio.create_task(self.talk(manager, f"s{k}", k)) for k in range(num_sessions)
            ]
            while not all(talk.done() for talk in talks):
                found = (await manager.stats()).num_bytes
                most = {tier: max(most[tier], found[tier]) for tier in most}
                passed += found["host"] > host or found["disk"] > disk
                samples += 1
                await asyncio.sleep(0.02)
            answers = [talk.result() for talk in talks]
            moves = dict((await manager.stats()).moves)
        async with self.manager("alone", _ALL, _ALL) as manager:
            equal = 0
            for k in shown(range(num_sessions), "sessions alone"):
                alone = await self.talk(manager, f"s{k}", k)
                equal += sum(a == b for a, b in zip(answers[k], alone, strict=True))
        return {
            "caps": {"device_slots": NUM_SLOTS, "host_bytes": host, "disk_bytes": disk},
            "most_bytes_sampled": most,
            "samples": samples,
            "samples_over_a_cap": passed,
            "answers": num_sessions * TURNS,
            "answers_equal_to_a_run_alone": equal,
            "moves": moves,
        }

    async def bring_back(self, tier: str, num_sessions: int) -> dict[str, float]:
        """Time bringing sessions back from a tier, with the tokens that are fed again."""
        host, disk = {"host": (_ALL, _ALL), "disk": (0, _ALL), "tail": (0, 0)}[tier]
        seconds = []
        async with self.manager(f"back-{tier}", host, disk) as manager:
            for k in range(num_sessions):
                await self.talk(manager, f"s{k}", k)
            for k in range(num_sessions - NUM_SLOTS):
                session = await manager._table.get("", f"s{k}")
                assert manager._residency.tier(session) == tier
                asked = request(
                    "?",
                    identity=Identity("session", f"s{k}"),
                    params=SamplingParams(max_new_tokens=1),
                )
                began = time.perf_counter()
                async for _ in manager.respond(asked):
                    pass
                seconds.append(time.perf_counter() - began)
        return {"median_seconds": statistics.median(seconds), "longest_seconds": max(seconds)}

    async def dormant(self, num_sessions: int) -> dict[str, float]:
        """Put sessions away by snapshot, and start again."""
        async with self.manager("dormant", 0, _ALL) as manager:
            for k in shown(range(num_sessions), "dormant sessions"):
                await self.talk(manager, f"s{k}", k)
        folder = self._folder / "dormant"
        snapshots = [
            path.stat().st_size for path in folder.glob("snapshots/**/*") if path.is_file()
        ]
        database = sum(path.stat().st_size for path in folder.glob("sessions.sqlite*"))
        began = time.perf_counter()
        async with self.manager("dormant", 0, _ALL) as manager:
            seconds = time.perf_counter() - began
            stats = await manager.stats()
        return {
            "sessions": num_sessions,
            "snapshots": stats.num_sessions["disk"],
            "snapshot_bytes_per_session": sum(snapshots) / len(snapshots),
            "database_bytes_per_session": database / num_sessions,
            "start_seconds": seconds,
        }


async def measure(
    lm: LanguageModel, cache_size: int, sessions: int, dormant: int, opening_words: int
) -> Any:
    """Run all and return the results."""
    with tempfile.TemporaryDirectory() as name:
        tiers = Tiers(lm, cache_size, Path(name), opening_words)
        state = await tiers.bytes_of_state()
        return {
            "sessions": sessions,
            "opening_words": opening_words,
            "bytes_of_a_state_at_most": state,
            "crowd": await tiers.crowd(sessions, state),
            "turn_of_one_token_after_bringing_back": {
                tier: await tiers.bring_back(tier, 3 * NUM_SLOTS)
                for tier in ("host", "disk", "tail")
            },
            "dormant_by_snapshot": await tiers.dormant(dormant),
        }


def main(
    model: Annotated[str, typer.Option(help="Name or folder; a tiny random one if empty.")] = "",
    cache_size: Annotated[int, typer.Option(help="Tokens that a session sees.")] = 128,
    sessions: Annotated[int, typer.Option(help="That talk at once.")] = 200,
    dormant: Annotated[int, typer.Option(help="Put away by snapshot.")] = 500,
    opening_words: Annotated[int, typer.Option(help="That each session begins with.")] = 0,
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
) -> None:
    """Measure and write the results."""
    if model:
        lm, name = load_model(model), model
    else:
        with tempfile.TemporaryDirectory() as folder:
            lm, name = load_model(write_tiny_chat(Path(folder)), dtype="float64"), "tiny, random"
    found = asyncio.run(measure(lm, cache_size, sessions, dormant, opening_words))
    write_json(json, {"model": name, "cache_size": cache_size, **found, **run_record()})


if __name__ == "__main__":
    typer.run(main)
