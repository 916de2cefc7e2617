"""Folders for compiled steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm.graphs import aot_cache
from streamingllm.kernels import native


@pytest.fixture
def step_folder() -> Path:
    """Where all tests of this run keep compiled steps, so that each is compiled once."""
    _need_a_compiler()
    return _folder_of_steps()


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for compiled steps in which there is none."""
    _need_a_compiler()
    monkeypatch.setattr(aot_cache, "user_cache_path", lambda name: tmp_path / "user" / name)
    folder = _folder_of_steps()
    assert folder.is_relative_to(tmp_path)
    return folder


def _need_a_compiler() -> None:
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")


def _folder_of_steps() -> Path:
    return aot_cache.package_path("any").parent
