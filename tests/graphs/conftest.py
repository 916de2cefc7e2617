"""One cache folder for compiled steps, so that each is compiled once in a run of the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamingllm.graphs import aot_cache
from streamingllm.kernels import native


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def step_folder(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled steps are kept in this run, instead of the user's cache folder."""
    return use_folder(shared_folder / "steps", monkeypatch)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for compiled steps in which there is none."""
    return use_folder(tmp_path / "steps", monkeypatch)


def use_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")
    monkeypatch.setattr(aot_cache, "user_cache_path", lambda name: folder / name)
    return folder / "streamingllm" / "graphs"
