"""Sessions in memory: which of them stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm.sessions.session_table import SessionTable
from streamingllm.sessions.sqlite_store import SqliteStore

pytestmark = pytest.mark.anyio


async def test_sessions_that_no_store_has_push_out_none_that_is_loaded(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.sqlite", snapshots=tmp_path / "snapshots")
    table = SessionTable(store, cache_size=64, max_resting=2)
    await table.create("", "told")
    for _ in range(3):
        await table.create("", is_stored=False)
    loaded = await table.get("", "told")
    assert table.holds(loaded)
    assert await table.get("", "told") is loaded
    store.close()


async def test_resting_sessions_beyond_the_bound_leave_memory(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.sqlite", snapshots=tmp_path / "snapshots")
    table = SessionTable(store, cache_size=64, max_resting=2)
    sessions = [await table.create("", f"s{number}") for number in range(4)]
    assert [table.holds(session) for session in sessions] == [False, False, True, True]
    assert (await table.get("", sessions[0].id)).id == sessions[0].id  # from the store
    store.close()
