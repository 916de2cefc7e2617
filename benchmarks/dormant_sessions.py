"""Measure a store of many sessions that nobody talks to: bytes, memory, and time of each request.

Run: `python -m benchmarks.dormant_sessions --json benchmarks/results/dormant-sessions.json`

Each session has messages of words of the Python reference and about as many token ids as a model
would feed for them. They are dormant by tail: the store has their log and no snapshot. A process of
its own fills the store, so that the memory measured is that of serving.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import apsw
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.texts import open_documents
from streamingllm.sessions.history_digest import history_digests
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import TurnCommit
from streamingllm.sessions.transcript import ContentPart, Message

_DATABASE = "sessions.sqlite"
_SESSIONS_PER_TRANSACTION = 2000
_NUM_OWNERS = 100
_NUM_MESSAGES = 10
_TOKENS_PER_MESSAGE = 100
_WORDS_PER_MESSAGE = 70
_VOCABULARY = 49_152


def session_id(number: int) -> str:
    """Return the id of a session."""
    return f"{owner_of(number)}/sess_{number:08d}"


def owner_of(number: int) -> str:
    """Return the owner of a session."""
    return f"owner{number % _NUM_OWNERS}"


def fill(folder: Path, num_sessions: int, seed: int) -> None:
    """Create sessions, many in a transaction."""
    chance, words = random.Random(seed), " ".join(open_documents("pydoc")).split()
    with SqliteStore(folder / _DATABASE, snapshots=folder / "snapshots") as store:
        starts = range(0, num_sessions, _SESSIONS_PER_TRANSACTION)
        for start in shown(starts, "filling"):
            stop = min(start + _SESSIONS_PER_TRANSACTION, num_sessions)
            with store.transaction():
                for number in range(start, stop):
                    store.create(session_id(number), {"title": "A"}, owner=owner_of(number))
                    store.commit_turn(session_id(number), 0, conversation(chance, words, number))


def conversation(chance: random.Random, words: Sequence[str], number: int) -> TurnCommit:
    """Return the messages of a session; its first one has a word that no other has."""
    messages = []
    for index in range(_NUM_MESSAGES):
        first = chance.randrange(len(words) - _WORDS_PER_MESSAGE)
        said = words[first : first + _WORDS_PER_MESSAGE]
        if index == 0:
            said = [f"topic{number}", *said]
        messages.append(
            Message(
                "assistant" if index % 2 else "user",
                (ContentPart(" ".join(said)),),
                first=index * _TOKENS_PER_MESSAGE,
                stop=(index + 1) * _TOKENS_PER_MESSAGE,
                begins_turn=index % 2 == 0,
            )
        )
    num_tokens = _NUM_MESSAGES * _TOKENS_PER_MESSAGE
    ids = array("I", (chance.randrange(_VOCABULARY) for _ in range(num_tokens)))
    return TurnCommit(0, 0, tuple(messages), ids)


def median_milliseconds(action: Callable[[int], object], numbers: Sequence[int]) -> float:
    """Return the median time of an action over sessions."""
    times = []
    for number in numbers:
        started = time.perf_counter()
        action(number)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status names no VmRSS")


def measure(folder: Path, num_sessions: int, num_repeats: int, seed: int) -> dict[str, Any]:
    """Open the store and time what a server asks of it."""
    chance = random.Random(seed + 1)
    chosen = chance.sample(range(num_sessions), min(num_repeats, num_sessions))
    before, started = resident_bytes(), time.perf_counter()
    with SqliteStore(folder / _DATABASE, snapshots=folder / "snapshots") as store:
        opened = time.perf_counter() - started
        digests = {
            number: history_digests(store.get(session_id(number)).transcript) for number in chosen
        }

        def cursor(number: int) -> str:
            return store.summary(session_id(number), owner_of(number)).cursor

        def list_page(number: int) -> None:
            assert len(store.list(owner_of(number), limit=20)) == min(
                20, len(range(number % _NUM_OWNERS, num_sessions, _NUM_OWNERS))
            )

        def search(number: int) -> None:
            assert len(store.list(owner_of(number), query=f"topic{number} ")) >= 1

        def find(number: int) -> None:
            known = store.find_prefix(owner_of(number), [*digests[number], b"new"])
            assert known == [(session_id(number), _NUM_MESSAGES)]

        requests: dict[str, Callable[[int], object]] = {
            "list 20": list_page,
            "list 20 after a cursor": lambda n: store.list(owner_of(n), limit=20, after=cursor(n)),
            "search a rare word": search,
            "search a word of many sessions": lambda n: store.list(
                owner_of(n), limit=20, query="function"
            ),
            "summary": lambda n: store.summary(session_id(n), owner_of(n)),
            "get": lambda n: store.get(session_id(n), owner_of(n)),
            "find a history": find,
            "delete": lambda n: store.delete(session_id(n), owner_of(n)),
        }
        times = {name: median_milliseconds(action, chosen) for name, action in requests.items()}
        return {
            "open_milliseconds": 1000 * opened,
            "median_milliseconds": times,
            "resident_bytes_before": before,
            "resident_bytes": resident_bytes(),
        }


def print_table(results: dict[str, Any]) -> None:
    """Print what was measured for people, on standard error."""
    table = Table("dormant sessions by tail", f"{results['num_sessions']:,}")
    table.add_row("bytes per session", f"{results['bytes_per_session']:,.0f}")
    table.add_row("open the store", f"{results['open_milliseconds']:.1f} ms")
    for name, value in results["median_milliseconds"].items():
        table.add_row(name, f"{value:.2f} ms")
    added = results["resident_bytes"] - results["resident_bytes_before"]
    table.add_row("resident memory added", f"{added / 2**20:.1f} MiB")
    Console(stderr=True).print(table)


def main(
    num_sessions: Annotated[int, typer.Option(help="Sessions to create.")] = 100_000,
    repeats: Annotated[int, typer.Option(help="Sessions that each request is timed on.")] = 100,
    seed: Annotated[int, typer.Option(help="Of messages, token ids and chosen sessions.")] = 0,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Fill a store, open it and time requests."""
    with tempfile.TemporaryDirectory(prefix="dormant-sessions-") as made:
        folder, started = Path(made), time.perf_counter()
        filler = multiprocessing.get_context("spawn").Process(
            target=fill, args=(folder, num_sessions, seed)
        )
        filler.start()
        filler.join()
        if filler.exitcode != 0:
            raise SystemExit(f"filling the store failed with exit code {filler.exitcode}")
        filled = time.perf_counter() - started
        nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        results = {
            "num_sessions": num_sessions,
            "num_messages_per_session": _NUM_MESSAGES,
            "num_tokens_per_session": _NUM_MESSAGES * _TOKENS_PER_MESSAGE,
            "num_owners": _NUM_OWNERS,
            "repeats": repeats,
            "bytes_per_session": nbytes / num_sessions,
            "fill_seconds": filled,
            **measure(folder, num_sessions, repeats, seed),
        }
    print_table(results)
    record = run_record(seed)
    record["versions"] |= {"apsw": apsw.apsw_version(), "sqlite": apsw.sqlite_lib_version()}
    write_json(json, {**results, **record})


if __name__ == "__main__":
    typer.run(main)
