from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamingllm.errors import ConfigError, SnapshotError
from streamingllm.sessions.snapshot_files import SnapshotFiles, SnapshotFolder
from streamingllm.sessions.snapshot_objects import SnapshotObjects
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import Snapshot

MAKERS: list[Callable[[Path], SnapshotFiles]] = [
    lambda folder: SnapshotFolder(folder, is_shared=True),
    lambda folder: SnapshotObjects(f"file://{folder}"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_files_are_whole_and_go_when_they_are_deleted(
    make: Callable[[Path], SnapshotFiles], tmp_path: Path
) -> None:
    files = make(tmp_path / "a" / "b")
    names = [files.write("session", bytes([number]) * 1000) for number in range(2)]
    assert names[0] != names[1]
    assert [files.read(name)[0] for name in names] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(names)
    files.delete(names[0])
    files.delete(names[0])
    with pytest.raises(SnapshotError, match="cannot be read"):
        files.read(names[0])


@pytest.mark.parametrize("make", MAKERS)
def test_a_sweep_of_a_shared_folder_leaves_what_may_be_written_now(
    make: Callable[[Path], SnapshotFiles], tmp_path: Path
) -> None:
    files = make(tmp_path)
    named, new, old = (files.write("session", b"x") for _ in range(3))
    hours_ago = time.time() - 3 * 3600
    for name in (named, old):
        os.utime(tmp_path / name, (hours_ago, hours_ago))
    assert files.sweep([named]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {named, new}


def test_a_store_keeps_its_snapshots_where_fsspec_reaches(tmp_path: Path) -> None:
    files = SnapshotObjects("memory://snapshots")
    with SqliteStore(tmp_path / "sessions.db", snapshots=files) as store:
        store.create("s")
        store.put_snapshot("s", 0, Snapshot(0, b"state"))
        record = store.snapshot_record("s")
        assert record is not None
        assert record.nbytes == 5
        assert store.get_snapshot("s") == Snapshot(0, b"state")
        store.drop_snapshot("s")
        assert store.get_snapshot("s") is None
        assert store.snapshot_record("s") is None


def test_an_unknown_protocol_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="snapshots='nowhere://x' cannot be used"):
        SnapshotObjects("nowhere://x")
