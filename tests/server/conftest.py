"""A server of the tiny chat model in a thread, on a free port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamingllm import LanguageModel, load_model
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.requests import Api
from tests.server.serving import serving, small_app


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny random model in float64 with one token per byte and a chat template."""
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("tiny-chat")), dtype="float64")


@pytest.fixture(scope="session")
def server(tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose sessions see 64 tokens."""
    with serving(small_app(tiny_chat, tmp_path_factory.mktemp("server"))) as url:
        yield url


@pytest.fixture(scope="session")
def smol_server(
    default_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server of the default model whose sessions see 512 tokens."""
    app = small_app(
        default_model,
        tmp_path_factory.mktemp("smol-server"),
        model=default_model.name,
        cache_size=512,
        max_streams=2,
        max_pinned_tokens=384,
        max_rewind_tokens=64,
    )
    with serving(app) as url:
        yield url


@pytest.fixture(scope="session")
def keyed_server(
    tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server of two keys, "alice" and "bob"."""
    folder = tmp_path_factory.mktemp("keyed")
    with serving(small_app(tiny_chat, folder, api_key=("alice", "bob"))) as url:
        yield url


@pytest.fixture
def smol(smol_server: str) -> Iterator[Api]:
    """Requests to the server of the default model."""
    api = Api(smol_server)
    yield api
    api.close()


@pytest.fixture
def api(server: str) -> Iterator[Api]:
    """Requests to the server."""
    api = Api(server)
    yield api
    api.close()


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutines in asyncio, as the server does."""
    return "asyncio"
