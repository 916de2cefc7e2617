from __future__ import annotations

import sqlite3
from array import array
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from streamingllm.errors import SnapshotError
from streamingllm.sessions import Message
from streamingllm.sessions.conversation_file import load_session, save_session
from streamingllm.sessions.history_digest import history_digests
from streamingllm.sessions.sqlite_schema import is_database
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import Snapshot
from streamingllm.sessions.token_log import TokenLog

VERSION_1 = Path(__file__).with_name("version_1.sql")
SAID = ["Be brief.", "Where is the lighthouse?", "On the cliff. ", "How high?", "Thirty metres."]
IDS = [*range(100, 109), *range(200, 204)]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "chat"
    database = sqlite3.connect(path)
    database.executescript(VERSION_1.read_text(encoding="utf-8"))
    database.close()
    return path


def test_a_saved_chat_of_version_1_is_read_and_left_as_it_is(chat: Path) -> None:
    content = chat.read_bytes()
    assert is_database(chat)
    session, snapshot, saved = load_session(chat)
    assert [message.text for message in session.transcript] == SAID
    assert session.transcript[2].tool_calls[0].name == "find"
    assert list(session.token_log) == IDS
    assert snapshot == Snapshot(13, b"state of version 1")
    assert session.summary.metadata == {"model": "tiny", "title": "Ärger"}
    assert (session.summary.owner, saved.epoch) == ("", 2)
    assert chat.read_bytes() == content


def test_a_saved_chat_of_version_1_goes_on(chat: Path) -> None:
    session, _, saved = load_session(chat)
    session.transcript.append(replace(Message.of_text("user", "So?"), first=13, stop=14))
    log = TokenLog(array("I", [*IDS, 5]))
    save_session(chat, "chat_1", {}, session.transcript, log, Snapshot(14, b"new"), saved)
    found, snapshot, again = load_session(chat)
    assert [message.text for message in found.transcript] == [*SAID, "So?"]
    assert (list(found.token_log), snapshot, again.epoch) == ([*IDS, 5], Snapshot(14, b"new"), 3)


def test_a_migrated_store_finds_what_it_holds(chat: Path) -> None:
    with SqliteStore(chat) as store:
        history = history_digests(list(store.get("chat_1").transcript)[1:])
        assert store.find_prefix("", [*history, b"unknown"]) == [("chat_1", 4)]
        assert [summary.id for summary in store.list("", query="lighthouse")] == ["chat_1"]
        assert [record.nbytes for record in store.snapshots()] == [18]
    assert [*apsw.Connection(str(chat)).execute("PRAGMA integrity_check")] == [("ok",)]


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE sessions SET metadata = '{}'",
        "UPDATE messages SET body = replace(body, 'cliff', 'beach')",
        "UPDATE messages SET body = 'x'",
        "DROP TABLE parts",
    ],
)
@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_damaged_chat_of_version_1_is_refused_and_left_alone(
    chat: Path, tamper: str, mode: str
) -> None:
    database = sqlite3.connect(chat)
    database.execute(tamper)
    database.commit()
    database.close()
    content = chat.read_bytes()
    with pytest.raises(SnapshotError, match=str(chat)) as caught:
        SqliteStore(chat, mode=mode, journal="delete")
    assert "\n" not in str(caught.value)
    assert chat.read_bytes() == content
