"""The tensors of a folder's safetensors files, read one at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamingllm.errors import ModelLoadError
from streamingllm.models.weight_headers import weight_files

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class _Place:
    path: Path
    start: int
    num_bytes: int
    dtype: str
    shape: tuple[int, ...]


class Shards:
    """Read tensors of safetensors files by name, each into memory of its own.

    Files are read and not mapped: a mapped page counts as memory of the process until it is
    evicted.

    Args:
        folder: with one file, or with several and an index.

    Raises:
        ModelLoadError: a file is cut short, or its header is damaged.
        OSError: a file that the index names is missing.

    Source: https://huggingface.co/docs/safetensors, Format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata: dict[str, str] = {}
        self._places: dict[str, _Place] = {}
        for path in weight_files(folder):
            self._add(path)

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, from its header."""
        return self._places[name].shape

    def dtype(self, name: str) -> str:
        """Return the name of a tensor's dtype as the format spells it, such as `F8_E4M3`."""
        return self._places[name].dtype

    def num_bytes(self, name: str) -> int:
        """Return the bytes of a tensor in its file."""
        return self._places[name].num_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(place.num_bytes for place in self._places.values())

    def read(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            ModelLoadError: its dtype is unknown, or the file is cut short.
        """
        place = self._places[name]
        if place.dtype not in _DTYPES:
            raise ModelLoadError(
                f"{place.path}: {name} has dtype={place.dtype!r}, which torch cannot hold; choose "
                "a checkpoint in another format"
            )
        buffer = torch.empty(place.num_bytes, dtype=torch.uint8)
        with place.path.open("rb") as file:
            file.seek(place.start)
            if file.readinto(buffer.numpy().data) != place.num_bytes:
                raise ModelLoadError(f"{place.path}: ends inside {name}; fetch the file again")
        return buffer.view(_DTYPES[place.dtype]).view(place.shape)

    def _add(self, path: Path) -> None:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER_BYTES, file_bytes - 8):
                raise ModelLoadError(f"{path}: has no safetensors header; fetch the file again")
            header: dict[str, Any] = json.loads(file.read(length))
        self.metadata |= header.pop("__metadata__", {})
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            place = _Place(
                path, 8 + length + first, last - first, entry["dtype"], (*entry["shape"],)
            )
            if place.start + place.num_bytes > file_bytes or first < 0:
                raise ModelLoadError(f"{path}: ends inside {name}; fetch the file again")
            dtype = _DTYPES.get(place.dtype)
            if dtype is not None and prod(place.shape) * dtype.itemsize != place.num_bytes:
                raise ModelLoadError(
                    f"{path}: {name} of shape {place.shape} has {place.num_bytes:,} bytes; fetch "
                    "the file again"
                )
            self._places[name] = place
