"""The header of a GGUF file: its metadata and the table of its tensors, without the weights.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from streamingllm.errors import ModelLoadError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_DEFAULT_ALIGNMENT = 32
_LONG = 1024  # entries of an array, such as a vocabulary's, that are counted but not read


@dataclass(frozen=True)
class GgufTensor:
    """One row of the table: a tensor's name, shape (rows before columns) and GGML type."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """Hold what a GGUF file says of itself.

    Args:
        path: the file.
        version: of the format.
        metadata: values by key; of an array with more than 1,024 entries only its `Length`.
        raw: the bytes of each key with its value, as they are in the file.
        tensors: the table of tensors.
        raw_tensors: its bytes.
        data_offset: where the weights begin.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    raw: dict[str, bytes]
    tensors: tuple[GgufTensor, ...]
    raw_tensors: bytes
    data_offset: int

    @property
    def num_parts(self) -> int:
        """Files that the model is split into; 1 for a whole one."""
        return int(self.metadata.get("split.count", 0)) or 1

    @property
    def data_bytes(self) -> int:
        """Bytes of weights that the table promises."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        ends = [0]
        for tensor in self.tensors:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.ggml_type)]
            ends.append(tensor.offset + prod(tensor.shape) // block * block_bytes)
        return max(ends)

    def check_complete(self) -> None:
        """Refuse a file that is shorter than its table says.

        Raises:
            ModelLoadError: it is.
        """
        actual, promised = self.path.stat().st_size, self.data_offset + self.data_bytes
        if actual < promised:
            raise ModelLoadError(
                f"{self.path}: has {actual:,} bytes of {promised:,}; fetch the file again"
            )

    def write_without_weights(self, target: Path) -> None:
        """Write a GGUF file that has this header without its long arrays, and a hole for weights.

        Readers that want a configuration alone are as fast as the vocabulary is small.
        """
        kept = [raw for key, raw in self.raw.items() if not isinstance(self.metadata[key], Length)]
        head = _MAGIC + struct.pack("<IQQ", self.version, len(self.tensors), len(kept))
        content = head + b"".join(kept) + self.raw_tensors
        with target.open("wb") as file:
            file.write(content)
            file.truncate(self._aligned(len(content)) + self.data_bytes)

    def _aligned(self, offset: int) -> int:
        alignment = int(self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
        return -(-offset // alignment) * alignment


class Length(int):
    """The length of an array that has not been read."""


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file in milliseconds, however large the file is.

    Raises:
        ModelLoadError: the file is of another kind or version, or ends within its header.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ModelLoadError(
                f"model={str(path)!r} does not begin like a GGUF file; choose a .gguf file"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(path, content).header()
            except (struct.error, UnicodeDecodeError, KeyError) as error:
                raise ModelLoadError(
                    f"{path}: has a damaged header; fetch the file again"
                ) from error


class _Reader:
    """Walk through the bytes of a header from front to back."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._at = len(_MAGIC)

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in _VERSIONS:
            raise ModelLoadError(
                f"{self._path}: is GGUF version {version}; convert it to version 2 or 3, "
                "little-endian"
            )
        num_tensors, num_values = self._number("Q"), self._number("Q")
        metadata, raw = {}, {}
        for _ in range(num_values):
            start = self._at
            key = self._string()
            metadata[key] = self._value(self._number("I"))
            raw[key] = self._content[start : self._at]
        start = self._at
        tensors = tuple(self._tensor() for _ in range(num_tensors))
        raw_tensors = self._content[start : self._at]
        alignment = int(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
        data_offset = -(-self._at // alignment) * alignment
        return GgufHeader(self._path, version, metadata, raw, tensors, raw_tensors, data_offset)

    def _tensor(self) -> GgufTensor:
        name = self._string()
        dimensions = self._numbers("Q", self._number("I"))
        ggml_type, offset = self._number("I"), self._number("Q")
        return GgufTensor(name, tuple(reversed(dimensions)), ggml_type, offset)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        kind, length = self._number("I"), self._number("Q")
        if length <= _LONG:
            return [self._value(kind) for _ in range(length)]
        if kind == _STRING:
            self._skip_strings(length)
        else:
            self._at += length * struct.calcsize(f"<{_SCALARS[kind]}")
        return Length(length)

    def _skip_strings(self, count: int) -> None:
        content, at, unpack = self._content, self._at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(content, at)[0]
        self._at = at

    def _string(self) -> str:
        start = self._at + 8
        self._at = start + self._number("Q")
        if self._at > len(self._content):
            raise struct.error("a string ends past the end of the file")
        return self._content[start : self._at].decode()

    def _number(self, code: str) -> Any:
        return self._numbers(code, 1)[0]

    def _numbers(self, code: str, count: int) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{count}{code}")
        numbers = layout.unpack_from(self._content, self._at)
        self._at += layout.size
        return numbers
