"""Fixtures for conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from streamingllm import LanguageModel, load_model
from streamingllm.sessions.postgres_store import PostgresStore
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.sqlite_store import SqliteStore
from tests.reference.postgres import fresh_schema, postgres_server
from tests.reference.tiny_chat import write_tiny_chat


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny random model in float64 with one token per byte and a chat template."""
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("chat")), dtype="float64")


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutines in asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a PostgreSQL server; the test is skipped where there is none."""
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SqlStore]]:
    """Opens one database of sessions, again and again, in the way of several processes."""
    with ExitStack() as stores:
        if request.param == "sqlite":
            yield lambda: stores.enter_context(SqliteStore(tmp_path / "sessions.db"))
            return
        url = fresh_schema(request.getfixturevalue("postgres_url"), f"t{uuid4().hex}")
        yield lambda: stores.enter_context(PostgresStore(url))


@pytest.fixture
def store(open_store: Callable[[], SqlStore]) -> SqlStore:
    """An empty store."""
    return open_store()
