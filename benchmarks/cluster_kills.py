"""Kill engines and nodes of a cluster under sessions that talk, and compare with an unbroken run.

Each session asks numbered questions, whose answers are drawn with seeds. Kills come at random
moments once two engines are ready. Afterwards the engines are scaled up and down under the same
load. Then one engine that nobody kills is asked the same questions.

Run: `python -m benchmarks.cluster_kills --json benchmarks/results/cluster-kills.json`
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from benchmarks.cluster_nodes import TwoNodes
from benchmarks.cluster_talk import TalkingSession, Turn, quantiles
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import package_version, run_record
from streamingllm.models import load_model
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.settings import ServerSettings
from tests.reference.tiny_chat import write_tiny_chat

_CONNECTIONS = 512
_TIMEOUT_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 3.0
_KNOWN_SECONDS = 1.0  # until the death of an engine is known


def settings_of(model: Path, data: Path, port: int, database: str) -> ServerSettings:
    """Return the settings of each engine: a tiny model, whose sessions evict."""
    return ServerSettings(
        model=str(model),
        dtype="float64",
        compile=False,
        threads=1,
        cache_size=64,
        max_streams=8,
        max_pinned_tokens=30,
        max_rewind_tokens=40,
        data_dir=str(data),
        database=database,
        port=port,
        drain_seconds=20.0,
        log_level="info",
    )


def run_broken(
    nodes: TwoNodes,
    sessions: Sequence[TalkingSession],
    url: str,
    *,
    num_kills: int,
    every_nth_node: int,
    seed: int,
    max_seconds: float,
    scales: bool,
) -> dict[str, Any]:
    """Kill and scale under the sessions, which talk in a thread; return what was measured."""
    rng, is_over = random.Random(seed), threading.Event()
    kills: list[dict[str, Any]] = []
    scaling: dict[str, float] = {}
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(asyncio.run, talk_all(url, sessions, is_over))
        try:
            for number in range(num_kills):
                if time.perf_counter() - began > max_seconds:
                    break
                time.sleep(rng.random() * _LONGEST_PAUSE_SECONDS)
                is_node = every_nth_node > 0 and number % every_nth_node == every_nth_node - 1
                (nodes.kill_node if is_node else nodes.kill_engine)(rng)
                time.sleep(_KNOWN_SECONDS)
                ready = _KNOWN_SECONDS + nodes.wait(2)
                kills.append({"what": "node" if is_node else "engine", "ready_seconds": ready})
                say(f"kill {number + 1} of {num_kills}: two engines after {ready:.1f} s")
            for count in (3, 1, 2) if scales else ():
                scaling[f"to {count}"] = round(nodes.scale(count), 2)
                say(f"{count} engines after {scaling[f'to {count}']} s")
        finally:
            is_over.set()
        different = talking.result()
    return {"kills": kills, "scaling_seconds": scaling, "sessions_stored_otherwise": different}


async def talk_all(
    url: str, sessions: Sequence[TalkingSession], is_over: threading.Event
) -> list[str]:
    """Let sessions talk until it is over; return those whose stored messages are others."""
    async with client(url) as http:
        await asyncio.gather(*(session.talk(http, is_over) for session in sessions))
        names = [await differing(http, session) for session in sessions]
    return [name for name in names if name is not None]


async def differing(http: httpx2.AsyncClient, session: TalkingSession) -> str | None:
    """Return the name of a session whose stored messages are not those that it was told."""
    answer = await http.get(f"/v1/sessions/{session.name}")
    stored = [message["text"] for message in answer.json()["messages"]]
    told = [text for turn in session.turns for text in (turn.question, turn.answer)]
    return None if stored == told else session.name


async def unbroken_answers(
    settings: ServerSettings, sessions: Sequence[TalkingSession]
) -> list[list[str]]:
    """Return the answers of one engine that nobody kills to the same questions."""
    manager = assemble(load_model(settings.model, dtype=settings.dtype), settings)
    app = create_app(manager, settings)
    transport = httpx2.ASGITransport(app=app)
    alone = [TalkingSession(s.name, s.seed, s.think_seconds, s.max_tokens) for s in sessions]
    at_once = asyncio.Semaphore(settings.max_streams)

    async def repeat(own: TalkingSession, told: TalkingSession) -> None:
        async with at_once:
            for turn in told.turns:
                await own.ask(http, turn.question)

    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            pairs = zip(alone, sessions, strict=True)
            await asyncio.gather(*(repeat(own, told) for own, told in pairs))
    finally:
        await manager.close()
    return [[turn.answer for turn in own.turns] for own in alone]


def say(line: str) -> None:
    """Tell on standard error how far it is."""
    typer.echo(line, err=True)


def client(url: str) -> httpx2.AsyncClient:
    """Return a client for many sessions at once."""
    limits = httpx2.Limits(max_connections=_CONNECTIONS)
    return httpx2.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS, limits=limits)


def measured(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return silences and counts of turns."""
    hit = [turn for turn in turns if turn.was_repeated]
    calm = [turn for turn in turns if not turn.was_repeated]
    return {
        "num_turns": len(turns),
        "num_turns_repeated": len(hit),
        "num_requests_sent_again_by_clients": sum(turn.num_retries for turn in turns),
        "longest_silence_seconds_of_repeated_turns": quantiles([turn.silence for turn in hit]),
        "longest_silence_seconds_of_other_turns": quantiles([turn.silence for turn in calm]),
    }


def main(
    sessions: Annotated[int, typer.Option(help="Sessions that talk at once.")] = 100,
    kills: Annotated[int, typer.Option(help="Kills.")] = 50,
    every_nth_node: Annotated[
        int, typer.Option(help="Every kill of this number is of a node; 0 for none.")
    ] = 0,
    think_seconds: Annotated[float, typer.Option(help="Mean pause of a session.")] = 10.0,
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 24,
    max_seconds: Annotated[float, typer.Option(help="No kill begins after so long.")] = 3600.0,
    scales: Annotated[bool, typer.Option(help="Scale to 3, 1 and 2 engines at the end.")] = True,
    database: Annotated[
        str, typer.Option(help="PostgreSQL database; a SQLite file without one.")
    ] = "",
    port: Annotated[int, typer.Option(help="Port of the cluster.")] = 8147,
    seed: Annotated[int, typer.Option(help="Of kills, pauses and answers.")] = 0,
    json: Annotated[str, typer.Option(help="File for the result; - for standard output.")] = "-",
) -> None:
    """Kill engines under sessions that talk."""
    with tempfile.TemporaryDirectory(prefix="cluster-kills-") as name:
        folder = Path(name)
        (folder / "model").mkdir()
        model = write_tiny_chat(folder / "model")
        talking = [
            TalkingSession(
                f"s{number}", 1_000_000 * seed + 1000 * number, think_seconds, max_tokens
            )
            for number in range(sessions)
        ]
        settings = settings_of(model, folder / "data", port, database)
        with TwoNodes(settings) as nodes:
            say(f"two engines after {nodes.scale(2):.1f} s")
            result = run_broken(
                nodes,
                talking,
                f"http://127.0.0.1:{port}",
                num_kills=kills,
                every_nth_node=every_nth_node,
                seed=seed,
                max_seconds=max_seconds,
                scales=scales,
            )
            restores = nodes.restores()
        say("the same questions without a kill")
        alone = settings_of(model, folder / "alone", port, "")
        expected = asyncio.run(unbroken_answers(alone, talking))
    told = [[turn.answer for turn in session.turns] for session in talking]
    pairs = zip(told, expected, strict=True)
    num_different = sum(a != b for got, want in pairs for a, b in zip(got, want, strict=True))
    dead = result.pop("kills")
    payload = {
        "settings": {
            "sessions": sessions,
            "think_seconds": think_seconds,
            "max_tokens": max_tokens,
            "store": "PostgreSQL" if database else "SQLite",
            "model": "tiny random Llama, float64",
        },
        "num_kills": len(dead),
        "num_node_kills": sum(kill["what"] == "node" for kill in dead),
        "seconds_until_two_engines": quantiles([kill["ready_seconds"] for kill in dead]),
        **measured([turn for session in talking for turn in session.turns]),
        "num_answers_unlike_the_unbroken_run": num_different,
        "restore_seconds": quantiles(restores),
        **result,
        **run_record(seed),
    }
    payload["versions"]["ray"] = package_version("ray")
    write_json(json, payload)


if __name__ == "__main__":
    typer.run(main)
