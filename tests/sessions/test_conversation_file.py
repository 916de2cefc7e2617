from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw
import pytest
import torch

from streamingllm import LanguageModel, Stream
from streamingllm.errors import SnapshotError
from streamingllm.sessions import Conversation
from streamingllm.sessions.sqlite_store import SqliteStore
from tests.sessions.conversations import SAID, begin, held, say


def test_a_saved_conversation_goes_on(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    conversation = held(tiny_chat)
    conversation.save(tmp_path / "saved")
    loaded = Conversation.load(tiny_chat, tmp_path / "saved")
    assert loaded.turns == conversation.turns
    assert loaded.visibility == conversation.visibility
    assert torch.equal(loaded.stream.next_logits, conversation.stream.next_logits)
    assert say(loaded, "So?", 30) == say(conversation, "So?", 30)
    loaded.reread(6)
    assert say(loaded, SAID[0]) == conversation.turns[0].assistant
    assert conversation.stream.metadata == loaded.stream.metadata == {}


def test_files_that_are_no_conversation(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    stream = Stream(tiny_chat.model)
    stream.feed(tiny_chat.encode("Hi"))
    stream.snapshot(tmp_path / "stream")
    (tmp_path / "text").write_text("Hi")
    for name, message in (("stream", "cannot be read"), ("text", "cannot be read")):
        with pytest.raises(SnapshotError, match=message):
            Conversation.load(tiny_chat, tmp_path / name)


def test_a_second_save_writes_only_what_is_new(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    path, conversation = tmp_path / "saved", begin(tiny_chat)
    rows = []
    for text in (*SAID, *SAID):
        say(conversation, text)
        conversation.save(path)
        with SqliteStore(path, mode="read") as store:
            (summary,) = store.list()
            tokens = store.database.connection.execute("SELECT count(*) FROM tokens").fetchall()
            rows.append((summary.epoch, tokens[0][0]))
    assert rows == [(number, number) for number in range(1, 11)]
    conversation.reread(3)
    say(conversation, "So?")
    conversation.save(path)
    loaded = Conversation.load(tiny_chat, path)
    assert loaded.turns == conversation.turns
    assert list(loaded.token_log) == list(conversation.token_log)
    assert say(loaded, "Why?", 30) == say(conversation, "Why?", 30)
    loaded.save(path)
    with pytest.raises(SnapshotError, match="was saved by another writer since"):
        conversation.save(path)
    assert Conversation.load(tiny_chat, path).turns == loaded.turns


def test_a_failed_save_loses_nothing(
    tiny_chat: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, conversation = tmp_path / "saved", held(tiny_chat)
    conversation.save(path)
    turns = conversation.turns
    say(conversation, "So?")

    def full(*args: Any) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "put_snapshot", full)
        with pytest.raises(SnapshotError, match="database or disk is full"):
            conversation.save(path)
    assert Conversation.load(tiny_chat, path).turns == turns
    conversation.save(path)
    assert Conversation.load(tiny_chat, path).turns == conversation.turns
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]


def test_a_branch_takes_the_place_of_its_origin(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    path, conversation = tmp_path / "saved", held(tiny_chat)
    conversation.save(path)
    branch = conversation.fork()
    say(branch, "So?")
    branch.save(path)
    assert Conversation.load(tiny_chat, path).turns == branch.turns
    conversation.save(path)
    assert Conversation.load(tiny_chat, path).turns == conversation.turns


def test_a_file_of_something_else_is_not_replaced(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Hi")
    with pytest.raises(SnapshotError, match="is no saved conversation; save under another name"):
        held(tiny_chat).save(path)
    assert path.read_text() == "Hi"


def test_damaged_conversations_are_refused_in_one_line(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    path, conversation = tmp_path / "saved", held(tiny_chat)
    conversation.save(path)
    content, chance, refused = path.read_bytes(), random.Random(0), []
    for number in range(40):
        damaged = bytearray(content)
        if number < 30:
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            assert Conversation.load(tiny_chat, path).turns == conversation.turns
        except SnapshotError as error:
            refused.append(str(error))
    assert len(refused) > 15
    assert all("\n" not in line and str(path) in line for line in refused)
