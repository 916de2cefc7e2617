"""Kill a process that writes, at any moment: what it acknowledged is there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamingllm.sessions.response_store import ResponseStore
from streamingllm.sessions.sqlite_store import SqliteStore

# Each turn has 2 messages and 20 tokens; each third one takes the turn before it back.
WRITER = """
import sys
from array import array
from pathlib import Path
from streamingllm.sessions.response_store import ResponseRecord, ResponseStore
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import Snapshot, TurnCommit
from streamingllm.sessions.transcript import Message

folder, number = Path(sys.argv[1]), int(sys.argv[2])
store = SqliteStore(folder / "sessions.db", snapshots=folder / "snapshots", is_exclusive=True)
responses = ResponseStore(store.database, max_responses=1_000_000)
name = f"s{number}"
epoch, turns = store.create(name, owner="ada"), 0
while True:
    stay = turns - 1 if turns and epoch % 3 == 2 else turns
    said = tuple(Message.of_text("user", f"{name} word{epoch} {part}") for part in range(2))
    turn = TurnCommit(2 * stay, 20 * stay, said, array("I", range(20)))
    with store.transaction():
        epoch = store.commit_turn(name, epoch, turn)
        key = f"{name}-{epoch}"
        responses.put(ResponseRecord(key, "ada", name, None, "", "{}", "[]", 0.0, 1e12))
    turns = stay + 1
    print(epoch, turns, flush=True)
    if epoch % 4 == 0:
        store.put_snapshot(name, epoch, Snapshot(20 * turns, f"{name} {epoch}".encode()))
        store.create(f"gone-{number}-{epoch}", owner="ada")
        store.delete(f"gone-{number}-{epoch}")
"""


def acknowledged(folder: Path, number: int, seconds: float) -> tuple[int, int]:
    """Let a process write for a while, kill it, and return the epoch and turns it said last."""
    command = [sys.executable, "-c", WRITER, str(folder), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]  # it has begun
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    epoch, turns = [line for line in lines if line.endswith("\n")][-1].split()
    return int(epoch), int(turns)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    chance, said = random.Random(0), {}
    for number in range(12):
        said[number] = acknowledged(tmp_path, number, chance.uniform(0, 0.3))
        path, snapshots = tmp_path / "sessions.db", tmp_path / "snapshots"
        with SqliteStore(path, snapshots=snapshots, is_exclusive=True) as store:
            responses = ResponseStore(store.database)
            connection = store.database.connection
            assert connection.pragma("integrity_check") == "ok"
            connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
            for other, (epoch, turns) in said.items():
                name = f"s{other}"
                found = store.get(name, "ada")
                stored = found.summary.epoch
                # A turn may be durable before its process could say so.
                assert stored in ((epoch, epoch + 1) if other == number else (epoch,))
                if stored == epoch:
                    assert len(found.transcript) == 2 * turns
                assert len(found.token_log) == 10 * len(found.transcript)
                assert responses.get("ada", f"{name}-{stored}").session_id == name
                words = f"{name} word{stored - 1}"
                assert name in [summary.id for summary in store.list("ada", query=words)]
                if (snapshot := store.get_snapshot(name)) is not None:
                    assert snapshot.num_tokens <= len(found.token_log)
                    assert snapshot.content.decode().startswith(f"{name} ")
                said[other] = (stored, len(found.transcript) // 2)
            named = {record.session_id for record in store.snapshots()}
            assert len(list(snapshots.iterdir())) == len(named)
