"""Fixtures for commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.tiny_folder import write_tiny_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a byte-level tokenizer."""
    return write_tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 300 bytes."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("All work and no play makes Jack a dull boy.\n" * 7, encoding="utf-8")
    return path
