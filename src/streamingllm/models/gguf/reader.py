"""The bytes of a GGUF header, walked through from front to back.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Container
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.ggml_types import GGML_TYPES, GgmlType

_VERSIONS = (2, 3)
_BIG_ENDIAN = 1 << 16  # a version this large is a small one whose bytes are in the other order
_STRING, _ARRAY, _UINT32 = 8, 9, 4
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
_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT = "general.alignment", 32
_LONG = 1024  # entries of an array, such as a vocabulary's, that is read only when asked for
_MAX_DIMENSIONS, _MAX_NESTING, _MAX_NAME_BYTES = 4, 4, 256
_MIN_VALUE_BYTES, _MIN_TENSOR_BYTES = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class UnreadArray:
    """Point to a long array, which stays in the file.

    Args:
        kind: GGUF's number for the type of its entries.
        length: entries.
        start: of its first entry in the file.
        end: behind its last entry.
    """

    kind: int
    length: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class RawTensor:
    """Hold one row of the table; its offset counts from the beginning of the weights."""

    name: str
    shape: tuple[int, ...]
    ggml_type: GgmlType
    offset: int


@dataclass(frozen=True)
class RawHeader:
    """Hold a header; its weights begin at `data_offset`."""

    version: int
    metadata: dict[str, Any]
    tensors: tuple[RawTensor, ...]
    data_offset: int


class DamagedHeaderError(ValueError):
    """A header cannot be what it says; the message names the place."""


def read_raw_header(path: Path, content: mmap.mmap) -> RawHeader:
    """Read the header of a file that begins with `GGUF`.

    Raises:
        ModelLoadError: it has another version, is damaged, or ends too early.
    """
    try:
        return _Walker(path, content).header()
    except (DamagedHeaderError, struct.error, OverflowError) as error:
        reason = error if isinstance(error, DamagedHeaderError) else "it ends too early"
        raise ModelLoadError(
            f"{path}: has a damaged header ({reason}); fetch the file again"
        ) from error


def read_array(file: BinaryIO, array: UnreadArray) -> list[Any]:
    """Return the entries of an array that `read_raw_header` has found and checked."""
    file.seek(array.start)
    content = file.read(array.end - array.start)
    if len(content) < array.end - array.start:
        raise ModelLoadError(f"{file.name}: has become shorter; fetch the file again")
    if array.kind != _STRING:
        return list(struct.unpack(f"<{array.length}{_SCALARS[array.kind]}", content))
    texts, at, unpack = [], 0, struct.Struct("<Q").unpack_from
    for _ in range(array.length):
        end = at + 8 + unpack(content, at)[0]
        texts.append(_text(content[at + 8 : end]))
        at = end
    return texts


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"<bytes {content.hex()}>"


class _Walker:
    """Walk through the bytes of a header from front to back."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._at = 4

    def header(self) -> RawHeader:
        version = self._number("I")
        if version not in _VERSIONS:
            kind = "is big-endian" if version >= _BIG_ENDIAN else f"is GGUF version {version}"
            raise ModelLoadError(
                f"{self._path}: {kind}; convert it to version 2 or 3, little-endian"
            )
        num_tensors = self._count("tensors", _MIN_TENSOR_BYTES)
        num_values = self._count("values", _MIN_VALUE_BYTES)
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            key = self._name(metadata.keys())
            kind = self._number("I")
            metadata[key] = self._value(kind)
            if key == _ALIGNMENT_KEY and kind != _UINT32:
                raise DamagedHeaderError(f"{key} is no unsigned integer of 32 bits")
        alignment = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
        if alignment == 0 or alignment & (alignment - 1):
            raise DamagedHeaderError(f"{_ALIGNMENT_KEY}={alignment} is no power of two")
        tensors: dict[str, RawTensor] = {}
        for _ in range(num_tensors):
            tensor = self._tensor(self._name(tensors.keys()), alignment)
            tensors[tensor.name] = tensor
        data_offset = -(-self._at // alignment) * alignment
        return RawHeader(version, metadata, tuple(tensors.values()), data_offset)

    def _tensor(self, name: str, alignment: int) -> RawTensor:
        num_dimensions = self._number("I")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise DamagedHeaderError(f"tensor {name!r} has {num_dimensions} dimensions")
        dimensions = self._numbers("Q", num_dimensions)
        number, offset = self._number("I"), self._number("Q")
        ggml_type = GGML_TYPES.get(number)
        if ggml_type is None:
            raise ModelLoadError(
                f"{self._path}: tensor {name!r} has the unknown type {number}; choose a file "
                "in one of the types " + ", ".join(known.name for known in GGML_TYPES.values())
            )
        if not 0 < prod(dimensions) < 1 << 63 or dimensions[0] % ggml_type.block_values:
            raise DamagedHeaderError(f"tensor {name!r} of {ggml_type.name} is {dimensions}")
        if offset % alignment or offset >= 1 << 63:
            raise DamagedHeaderError(f"tensor {name!r} begins at {offset}")
        return RawTensor(name, tuple(reversed(dimensions)), ggml_type, offset)

    def _value(self, kind: int, nesting: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(self._code(kind))
        kind = self._number("I")
        if kind == _ARRAY:
            if nesting == _MAX_NESTING:
                raise DamagedHeaderError("arrays are nested too deeply")
            length = self._count("arrays", 4 + 8)
            return [self._value(_ARRAY, nesting + 1) for _ in range(length)]
        item_bytes = 8 if kind == _STRING else struct.calcsize(f"<{self._code(kind)}")
        length = self._count("entries", item_bytes)
        start = self._at
        if kind == _STRING:
            if length <= _LONG:
                return [self._string() for _ in range(length)]
            self._skip_strings(length)
        elif length <= _LONG:
            return list(self._numbers(self._code(kind), length))
        else:
            self._at += length * item_bytes
        return UnreadArray(kind, length, start, self._at)

    def _skip_strings(self, count: int) -> None:
        content, at, unpack = self._content, self._at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(content, at)[0]
        if at > len(content):
            raise DamagedHeaderError("a text ends past the end of the file")
        self._at = at

    def _name(self, taken: Container[str]) -> str:
        content = self._bytes()
        if not 0 < len(content) <= _MAX_NAME_BYTES:
            raise DamagedHeaderError(f"a name has {len(content):,} bytes")
        try:
            name = content.decode()
        except UnicodeDecodeError as error:
            raise DamagedHeaderError("a name is no text") from error
        if name in taken:
            raise DamagedHeaderError(f"{name[:40]!r} occurs twice")
        return name

    def _string(self) -> str:
        return _text(self._bytes())

    def _bytes(self) -> bytes:
        length = self._count("bytes of a text", 1)
        start = self._at
        self._at += length
        return self._content[start : self._at]

    def _count(self, what: str, item_bytes: int) -> int:
        """Return a number of items, each of which takes some bytes of what is left."""
        count = int(self._number("Q"))
        if count * item_bytes > len(self._content) - self._at:
            raise DamagedHeaderError(f"{count:,} {what} do not fit into the file")
        return count

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise DamagedHeaderError(f"a value has the unknown type {kind}")
        return _SCALARS[kind]

    def _number(self, code: str) -> Any:
        return self._numbers(code, 1)[0]

    def _numbers(self, code: str, count: int) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{count}{code}")
        numbers = layout.unpack_from(self._content, self._at)
        self._at += layout.size
        return numbers
