"""GGUF headers with damage of every kind, and what may become of them."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.config import gguf_fields
from streamingllm.models.gguf.names import tensor_targets
from streamingllm.models.gguf.parts import read_gguf_model

_EXTREMES = (0, 1, 2, 9, 31, 255, 1 << 16, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
_MAX_CHANGES = 4


def mutated(content: bytes, header_bytes: int, generator: random.Random) -> bytes:
    """Return a file whose header has a few changes, and which may be cut short.

    Args:
        content: of a whole file.
        header_bytes: bytes at its beginning that may be changed.
        generator: of the changes.
    """
    changed = bytearray(content)
    for _ in range(generator.randint(1, _MAX_CHANGES)):
        at = generator.randrange(4 if generator.random() < 0.95 else 0, header_bytes)
        kind = generator.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << generator.randrange(8)
        elif kind == 1:
            changed[at] = generator.randrange(256)
        elif kind == 2:
            changed[at : at + 8] = struct.pack("<Q", generator.choice(_EXTREMES))
        elif kind == 3:
            changed[at : at + 4] = struct.pack("<I", generator.choice(_EXTREMES) % (1 << 32))
        elif kind == 4:
            del changed[at : at + generator.randint(1, 16)]
        else:
            other = generator.randrange(header_bytes)
            changed[at:at] = changed[other : other + generator.randint(1, 64)]
        header_bytes = min(header_bytes, len(changed))
    if generator.random() < 0.1:
        del changed[generator.randrange(len(changed)) :]
    return bytes(changed)


def outcome(path: Path) -> str:
    """Read a file as a model's header; return `read` or `refused`.

    Raises:
        AssertionError: the refusal has more than one line.
        Exception: whatever else the reader raises, which it must not.
    """
    try:
        header = read_gguf_model(path)
        gguf_fields(header)
        tensor_targets(header)
    except ModelLoadError as error:
        message = str(error)
        assert "\n" not in message, message
        assert len(message) < 2000, message
        return "refused"
    return "read"
