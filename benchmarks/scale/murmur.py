"""MurmurHash3 of many short keys at once, as Ray's consistent hashing uses it.

Source: Appleby, MurmurHash3_x64_128. Ray 2.60 takes its first 64 bits under a fixed seed, in
ray.serve.experimental.consistent_hash_router.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RAY_SEED = 0xF9B4CA77
MAX_KEY_BYTES = 15

Hashes = NDArray[np.uint64]

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)


def _rotated(bits: Hashes, by: int) -> Hashes:
    return (bits << np.uint64(by)) | (bits >> np.uint64(64 - by))


def _avalanched(bits: Hashes) -> Hashes:
    bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return bits ^ (bits >> np.uint64(33))


def hashes(keys: NDArray[np.bytes_]) -> Hashes:
    """Return the 64 bits that Ray's router compares.

    Args:
        keys: [N] of at most 15 bytes each, without zero bytes.

    Raises:
        ValueError: a key may be longer.
    """
    width = keys.dtype.itemsize
    if width > MAX_KEY_BYTES:
        raise ValueError(f"keys={width} bytes are too long; use {MAX_KEY_BYTES} at most")
    padded = np.zeros((len(keys), 16), dtype=np.uint8)
    padded[:, :width] = np.frombuffer(keys.tobytes(), dtype=np.uint8).reshape(len(keys), width)
    lengths = np.char.str_len(keys).astype(np.uint64)
    words = padded.view("<u8").astype(np.uint64)
    with np.errstate(over="ignore"):
        second = np.uint64(RAY_SEED) ^ (_rotated(words[:, 1] * _C2, 33) * _C1)
        first = np.uint64(RAY_SEED) ^ (_rotated(words[:, 0] * _C1, 31) * _C2)
        first, second = first ^ lengths, second ^ lengths
        first = first + second
        second = second + first
        first, second = _avalanched(first), _avalanched(second)
        return first + second


def session_hashes(sessions: int) -> Hashes:
    """Return the hash of each session's name, `s` and nine digits: [sessions]."""
    found = np.empty(sessions, dtype=np.uint64)
    for begin in range(0, sessions, 1 << 20):
        numbers = np.arange(begin, min(sessions, begin + (1 << 20)))
        found[begin : begin + len(numbers)] = hashes(session_names(numbers))
    return found


def session_names(numbers: NDArray[np.int64]) -> NDArray[np.bytes_]:
    """Return the names of sessions, `s` and nine digits each: [N]."""
    digits = np.empty((len(numbers), 10), dtype=np.uint8)
    digits[:, 0] = ord("s")
    rest = numbers.copy()
    for column in range(9, 0, -1):
        digits[:, column] = ord("0") + rest % 10
        rest //= 10
    return np.frombuffer(digits.tobytes(), dtype="S10")


def replica_keys(replica: int, generation: int, virtual_nodes: int) -> NDArray[np.bytes_]:
    """Return the keys of a replica on the ring: its id, a colon, a number."""
    unique_id = f"{replica:04d}g{generation:03d}"
    return np.array([f"{unique_id}:{k}".encode() for k in range(virtual_nodes)], dtype="S15")
