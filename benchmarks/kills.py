"""Kill a server 200 times under load and look for what was lost.

Run: `python -m benchmarks.kills --kills 200 --json benchmarks/results/kills.json`

Clients of four kinds (the session named or found by its history, the answer streamed or whole) talk
to `streamingllm serve` with a tiny random model until it is killed with SIGKILL at a random moment.
After each restart every answered turn must be there and every session readable. At the end a server
that is never killed is asked the same, and every greedy answer must be equal.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.server_process import ServerProcess
from tests.server.talkers import Conversation, Talker, answers_alone, kill_moment

OPTIONS = (
    *("--cache-size", "64", "--dtype", "float64", "--threads", "1", "--no-compile"),
    *("--max-streams", "4", "--host-memory", "200KB", "--disk", "1MB"),
    *("--snapshot-seconds", "0.05", "--log-level", "warning"),
)
TIMEOUT = 120.0


async def kill_often(
    server: ServerProcess, talkers: list[Talker], num_kills: int, longest: float, seed: int
) -> dict[str, Any]:
    """Kill the server under load, and count what each restart finds."""
    rng, starts = random.Random(seed), []
    counts = {"answered_turns_checked": 0, "turns_cut": 0, "turns_durable_but_not_delivered": 0}
    for _ in shown(range(num_kills), "kills"):
        async with httpx2.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
            talks = [asyncio.create_task(talker.talk(http)) for talker in talkers]
            await asyncio.sleep(kill_moment(rng, longest))
            server.kill()
            await asyncio.gather(*talks)
        starts.append(server.start())
        async with httpx2.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
            for talker in talkers:
                last = talker.conversations[-1]
                num_answered, was_asked = len(last.turns), last.asked is not None
                for conversation in talker.conversations[-2:]:
                    await conversation.check(http)
                counts["answered_turns_checked"] += num_answered
                counts["turns_cut"] += was_asked
                counts["turns_durable_but_not_delivered"] += len(last.turns) - num_answered
    return {**counts, "median_start_seconds": round(statistics.median(starts), 2)}


async def end(server: ServerProcess, told: list[Conversation]) -> None:
    """Read every session once more, and let each go on by one turn."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
        for conversation in told:
            await conversation.check(http)
            await conversation.ask(http)


async def compare(server: ServerProcess, told: list[Conversation]) -> dict[str, int]:
    """Count the answers that are equal to those of a server that is never killed."""
    counts = {"equal": 0, "different": 0}
    async with httpx2.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
        for conversation in shown(told, "conversations"):
            expected = await answers_alone(http, conversation, conversation.name)
            for given, alone in zip(conversation.turns, expected, strict=True):
                counts["equal" if given == alone else "different"] += 1
    return counts


def measure(num_kills: int, num_clients: int, longest: float, seed: int) -> dict[str, Any]:
    """Run and return counts."""
    talkers = [Talker(number) for number in range(num_clients)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_tiny_chat(folder / "model")
        with ServerProcess(model, folder / "killed", *OPTIONS) as server:
            counts = asyncio.run(kill_often(server, talkers, num_kills, longest, seed))
            told = [conversation for talker in talkers for conversation in talker.conversations]
            asyncio.run(end(server, told))
        with ServerProcess(model, folder / "alone", *OPTIONS) as alone:
            answers = asyncio.run(compare(alone, told))
    return {
        "kills": num_kills,
        "clients": num_clients,
        "longest_seconds_between_kills": longest,
        "options": " ".join(OPTIONS),
        "conversations": len(told),
        "answered_turns": sum(len(conversation.turns) for conversation in told),
        **counts,
        "answered_turns_lost": 0,  # a check that fails ends the run
        "sessions_unreadable": 0,
        "answers": answers,
    }


def main(
    kills: Annotated[int, typer.Option(help="Times the server is killed.")] = 200,
    clients: Annotated[int, typer.Option(help="That talk at once.")] = 8,
    longest: Annotated[float, typer.Option(help="Seconds between two kills, at most.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
) -> None:
    """Kill, compare, and write the results."""
    write_json(json, {**measure(kills, clients, longest, seed), **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
