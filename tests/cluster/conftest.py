"""A tiny chat model, and the event loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm import LanguageModel, load_model
from tests.reference.tiny_chat import write_tiny_chat


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model with one token per byte and a chat template."""
    return write_tiny_chat(tmp_path_factory.mktemp("tiny-chat"))


@pytest.fixture(scope="session")
def tiny_chat(tiny_folder: Path) -> LanguageModel:
    """The tiny chat model in float64."""
    return load_model(tiny_folder, dtype="float64")


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutines in asyncio, as the server does."""
    return "asyncio"
