"""Folders for compiled steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamingllm.cache_folder import using_cache_folder
from streamingllm.kernels import native
from tests.conftest import link_kernels


@pytest.fixture
def step_folder(shared_folder: Path) -> Iterator[Path]:
    """Where compiled steps are kept in this run, instead of the user's cache folder."""
    with use_folder(shared_folder / "steps") as folder:
        yield folder


@pytest.fixture
def empty_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for compiled steps in which there is none."""
    with use_folder(tmp_path / "steps") as folder:
        yield folder


@contextlib.contextmanager
def use_folder(folder: Path) -> Iterator[Path]:
    """Keep compiled steps in a folder; the kernels in it are those of the user's cache folder."""
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")
    link_kernels(folder)
    with using_cache_folder(folder):
        yield folder / "graphs"
