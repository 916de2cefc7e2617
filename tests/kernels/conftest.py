"""Fixtures for kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from streamingllm.kernels import native

# `test_sanitizers` runs other tests on a library of its own.
if path := os.environ.get("STREAMINGLLM_TEST_LIBRARY"):
    native.build = lambda: Path(path)


@pytest.fixture
def native_kernels() -> None:
    """The C++ kernels; tests that ask for them are left out where they cannot be built."""
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Threads that torch has while the test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
