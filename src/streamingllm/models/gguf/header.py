"""The header of a GGUF file: its metadata and the table of its tensors, without the weights.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any, TypeVar

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.ggml_types import GgmlType
from streamingllm.models.gguf.reader import RawHeader, UnreadArray, read_array, read_raw_header

_ARCHITECTURE = re.compile(r"[\w.-]{1,64}")
_Value = TypeVar("_Value", str, int, float, bool)


@dataclass(frozen=True)
class GgufTensor:
    """Describe one tensor.

    Args:
        name: in the file.
        shape: rows before columns, as PyTorch counts them.
        ggml_type: of its values.
        offset: of its first byte from the beginning of the file.
        path: the file that holds it, one of several if the model is split.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: GgmlType
    offset: int
    path: Path

    @property
    def num_bytes(self) -> int:
        """Bytes that its values take."""
        return prod(self.shape) // self.ggml_type.block_values * self.ggml_type.block_bytes


@dataclass(frozen=True)
class GgufHeader:
    """Hold what a GGUF file states about its model.

    Args:
        path: the file, the first one if the model is split.
        version: of the format.
        metadata: values by key; an array of more than 1,024 entries is an `UnreadArray`.
        tensors: the table of tensors, in the order of the file.
    """

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        """Name of the family in llama.cpp's spelling.

        Raises:
            ModelLoadError: the file states none.
        """
        name = self.text("general.architecture")
        if _ARCHITECTURE.fullmatch(name) is None:
            raise ModelLoadError(
                f"{self.path}: general.architecture={name[:40]!r} is no name; choose a GGUF file "
                "of a language model"
            )
        return name

    @property
    def num_parts(self) -> int:
        """Files that the model is split into; 1 for a whole one."""
        return self.integer("split.count", 0) or 1

    def array(self, key: str) -> list[Any] | None:
        """Return an array, which is read now if it is long; None if the file has none.

        A string that is not UTF-8 becomes `<bytes HEX>`.

        Raises:
            ModelLoadError: the value is no array.
        """
        value = self.metadata.get(key)
        if isinstance(value, UnreadArray):
            with self.path.open("rb") as file:
                return read_array(file, value)
        if value is not None and not isinstance(value, list):
            raise self._wrong(key, "an array")
        return value

    def length(self, key: str) -> int | None:
        """Return the length of an array without reading it; None if the file has none."""
        value = self.metadata.get(key)
        return len(value) if isinstance(value, UnreadArray | list) else None

    def text(self, key: str, default: str = "") -> str:
        """Return a string of the metadata, or `default` if there is none."""
        return self._typed(key, default, str, "a text")

    def integer(self, key: str, default: int) -> int:
        """Return an integer of the metadata, or `default` if there is none."""
        value = self._typed(key, default, int, "an integer")
        if isinstance(value, bool):
            raise self._wrong(key, "an integer")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a truth value of the metadata, or `default` if there is none."""
        return self._typed(key, default, bool, "a truth value")

    def number(self, key: str, default: float) -> float:
        """Return a finite number of the metadata, or `default` if there is none."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self._wrong(key, "a finite number")
        return float(value)

    def _typed(self, key: str, default: _Value, kind: type[_Value], name: str) -> _Value:
        value = self.metadata.get(key, default)
        if not isinstance(value, kind):
            raise self._wrong(key, name)
        return value

    def _wrong(self, key: str, wanted: str) -> ModelLoadError:
        shown = repr(self.metadata[key])[:40]
        return ModelLoadError(f"{self.path}: {key}={shown} is not {wanted}; fetch the file again")


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of one GGUF file in milliseconds, however large the file is.

    Every count, length and offset is checked against the length of the file before it is used.

    Raises:
        ModelLoadError: the file is of another kind or version, is damaged, or is cut short.
    """
    with path.open("rb") as file:
        if not (magic := file.read(4)):
            raise ModelLoadError(f"model={str(path)!r} is empty; fetch the file again")
        if magic != b"GGUF":
            raise ModelLoadError(
                f"model={str(path)!r} does not begin like a GGUF file; choose a .gguf file"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            raw = read_raw_header(path, content)
    return GgufHeader(path, raw.version, raw.metadata, _tensors(path, raw))


def _tensors(path: Path, raw: RawHeader) -> tuple[GgufTensor, ...]:
    rows = ((t.name, t.shape, t.ggml_type, raw.data_offset + t.offset) for t in raw.tensors)
    tensors = tuple(GgufTensor(*row, path) for row in rows)
    length, end = path.stat().st_size, raw.data_offset
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise ModelLoadError(
                f"{path}: tensor {tensor.name!r} overlaps another one; fetch the file again"
            )
        end = tensor.offset + tensor.num_bytes
    if tensors and end > length:
        raise ModelLoadError(f"{path}: has {length:,} bytes of {end:,}; fetch the file again")
    return tensors
