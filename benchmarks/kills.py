"""Kill a server 200 times under load and look for what was lost.

Run: `python -m benchmarks.kills --kills 200 --json benchmarks/results/kills.json`

Clients of four kinds (the session named or found by its history, the answer streamed or whole) talk
to `streamingllm serve` with a tiny random model until it is killed with SIGKILL at a random moment.
After each restart every answered turn must be there and every session readable. At the end a server
that is never killed is asked the same, and every greedy answer must be equal. The servers are forks
of a process that has imported all they need, so that a restart takes no seconds of imports.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.server_process import Launcher, ServerProcess
from tests.server.talkers import Conversation, Talker, answers_alone, kill_moment

OPTIONS = (
    *("--cache-size", "64", "--dtype", "float64", "--threads", "1", "--no-compile"),
    *("--max-streams", "4", "--host-memory", "200KB", "--disk", "1MB"),
    *("--snapshot-seconds", "0.05", "--log-level", "warning"),
)
TIMEOUT = 120.0


class Killed:
    """Kill one server under load, and count what each restart finds.

    Args:
        server: to kill.
        talkers: clients of it.
    """

    def __init__(self, server: ServerProcess, talkers: list[Talker]) -> None:
        self._server = server
        self._talkers = talkers
        self.start_seconds: list[float] = []
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    @property
    def conversations(self) -> list[Conversation]:
        """All that was said."""
        return [c for talker in self._talkers for c in talker.conversations]

    async def run(self, num_kills: int, longest: float, rng: random.Random, until: float) -> None:
        """Kill so many times, then read every session and let each go on by one turn."""
        await asyncio.to_thread(self._server.start)
        for number in range(num_kills):
            if time.monotonic() > until:
                break
            if number % 25 == 0:
                typer.echo(f"{self._server.url}: {number} of {num_kills} kills", err=True)
            async with self._client() as http:
                talks = [asyncio.create_task(talker.talk(http)) for talker in self._talkers]
                await asyncio.sleep(kill_moment(rng, longest))
                self._server.kill()
                await asyncio.gather(*talks)
            self.start_seconds.append(await asyncio.to_thread(self._server.start))
            async with self._client() as http:
                for talker in self._talkers:
                    await self._look_at(talker, http)
        async with self._client() as http:
            for conversation in self.conversations:
                await self._check(conversation, http)
                await conversation.ask(http)
        self._server.kill()

    async def _look_at(self, talker: Talker, http: httpx2.AsyncClient) -> None:
        last = talker.conversations[-1]
        num_answered = len(last.turns)
        self.counts["turns_cut"] += last.asked is not None
        for conversation in talker.conversations[-2:]:
            self.counts["answered_turns_checked"] += len(conversation.turns)
            await self._check(conversation, http)
        self.counts["turns_durable_but_not_delivered"] += len(last.turns) - num_answered

    async def _check(self, conversation: Conversation, http: httpx2.AsyncClient) -> None:
        try:
            await conversation.check(http)
        except AssertionError as error:
            self.counts["failed_checks"] += 1
            self.failures.append(str(error)[:300])

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self._server.url, timeout=TIMEOUT)


async def compare(server: ServerProcess, told: list[Conversation]) -> dict[str, Any]:
    """Count the answers that are equal to those of a server that is never killed."""
    counts: dict[str, Any] = {"equal": 0, "different": 0, "first_different": []}
    async with httpx2.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
        for conversation in shown(told, "conversations"):
            expected = await answers_alone(http, conversation, conversation.name)
            pairs = zip(conversation.turns, expected, strict=True)
            different = [number for number, (given, alone) in enumerate(pairs) if given != alone]
            counts["equal"] += len(expected) - len(different)
            counts["different"] += len(different)
            if different:
                kind = f"named={conversation.is_named} streamed={conversation.is_streamed}"
                where = f"turn {different[0]} of {len(expected)} of {conversation.name}"
                shown_turns = (conversation.turns[different[0]], expected[different[0]])
                counts["first_different"].append(f"{where}, {kind}: {shown_turns}")
    return counts


def measure(
    num_kills: int,
    num_servers: int,
    num_clients: int,
    longest: float,
    seconds: float,
    seed: int,
) -> dict[str, Any]:
    """Run and return counts."""
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_tiny_chat(folder / "model")
        launcher = Launcher()
        all_killed = []
        for number in range(num_servers):
            talkers = [Talker(number * num_clients + client) for client in range(num_clients)]
            server = ServerProcess(model, folder / f"killed-{number}", *OPTIONS, launcher=launcher)
            all_killed.append(Killed(server, talkers))

        async def kill_all() -> None:
            runs = (
                killed.run(num_kills // num_servers, longest, random.Random(seed + number), until)
                for number, killed in enumerate(all_killed)
            )
            await asyncio.gather(*runs)

        try:
            asyncio.run(kill_all())
        finally:
            launcher.close()
        told = [conversation for killed in all_killed for conversation in killed.conversations]
        with ServerProcess(model, folder / "alone", *OPTIONS) as alone:
            answers = asyncio.run(compare(alone, told))
    counts = sum((killed.counts for killed in all_killed), Counter())
    return {
        "kills": sum(len(killed.start_seconds) for killed in all_killed),
        "servers_killed_at_once": num_servers,
        "clients_of_each": num_clients,
        "longest_seconds_between_kills": longest,
        "options": " ".join(OPTIONS),
        "conversations": len(told),
        "answered_turns": sum(len(conversation.turns) for conversation in told),
        "failed_checks": 0,
        **counts,
        "failures": [failure for killed in all_killed for failure in killed.failures],
        "answers": answers,
        "median_start_seconds": statistics.median(s for k in all_killed for s in k.start_seconds),
    }


def main(
    kills: Annotated[int, typer.Option(help="Kills of all servers together.")] = 200,
    servers: Annotated[int, typer.Option(help="That run at once, each with its clients.")] = 1,
    clients: Annotated[int, typer.Option(help="Of each server, that talk at once.")] = 8,
    longest: Annotated[float, typer.Option(help="Seconds between two kills, at most.")] = 2.0,
    seconds: Annotated[float, typer.Option(help="No kill after so long.")] = 7200.0,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
) -> None:
    """Kill, compare, and write the results."""
    found = measure(kills, servers, clients, longest, seconds, seed)
    write_json(json, {**found, **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
