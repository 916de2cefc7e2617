"""Fixtures for memories of sessions."""

from __future__ import annotations

import pytest

from streamingllm import LanguageModel, load_model
from tests.reference.tiny_chat import write_tiny_chat


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny random model in float64 with one token per byte and a chat template."""
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("chat")), dtype="float64")


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutines in asyncio, as the server does."""
    return "asyncio"
