"""Replicas chosen by a hash of the session: a ring, one with bounded loads, rendezvous."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale.draws import Integers
from benchmarks.scale.murmur import Hashes, hashes, replica_keys

VIRTUAL_NODES = 100  # of Ray 2.60
Replicas = NDArray[np.int16]


class Placement(Protocol):
    """Choose a replica for each session."""

    def set_members(self, members: dict[int, int]) -> None:
        """Replace the members: numbers of replicas, each with the number of its replacements."""

    def place(self, sessions: Integers, ongoing: Integers) -> Replicas:
        """Return a replica for each session, -1 if there is none: [N].

        Args:
            sessions: [N].
            ongoing: [replicas], turns that each has now.
        """


class Ring:
    """Place as Ray's ConsistentHashRouter does, without its fallback.

    Args:
        session_hashes: [sessions].
        virtual_nodes: of each replica.
        successors: distinct replicas that `candidates` returns.

    Source: Karger et al., "Consistent hashing and random trees", STOC 1997; Ray 2.60.
    """

    def __init__(
        self, session_hashes: Hashes, virtual_nodes: int = VIRTUAL_NODES, successors: int = 1
    ) -> None:
        self._session_hashes, self._virtual_nodes = session_hashes, virtual_nodes
        self._num_successors = successors
        self._keys: dict[tuple[int, int], Hashes] = {}
        self._places: Hashes = np.empty(0, dtype=np.uint64)
        self._successors: Replicas = np.empty((0, successors), dtype=np.int16)

    def set_members(self, members: dict[int, int]) -> None:
        """Replace the members."""
        for replica, generation in members.items():
            if (replica, generation) not in self._keys:
                keys = replica_keys(replica, generation, self._virtual_nodes)
                self._keys[replica, generation] = hashes(keys)
        if not members:
            self._places = np.empty(0, dtype=np.uint64)
            return
        places = np.concatenate([self._keys[found] for found in members.items()])
        owners = np.repeat(np.fromiter(members, dtype=np.int16), self._virtual_nodes)
        order = np.argsort(places, kind="stable")
        self._places = places[order]
        self._successors = _distinct(owners[order], min(self._num_successors, len(members)))

    def candidates(self, sessions: Integers) -> Replicas:
        """Return the replicas clockwise from each session: [N, successors]."""
        index = np.searchsorted(self._places, self._session_hashes[sessions], side="right")
        index[index == len(self._places)] = 0
        return self._successors[index]

    def place(self, sessions: Integers, ongoing: Integers) -> Replicas:
        """Return the first replica clockwise from each session."""
        if not len(self._places):
            return np.full(len(sessions), -1, dtype=np.int16)
        return self.candidates(sessions)[:, 0]


def _distinct(owners: Replicas, number: int) -> Replicas:
    """Return the first distinct owners clockwise from each place of a ring: [places, number]."""
    found = np.full((len(owners), number), -1, dtype=np.int16)
    found[:, 0] = owners
    filled = np.ones(len(owners), dtype=np.int64)
    for step in range(1, len(owners)):
        if filled.min() == number:
            break
        following = np.roll(owners, -step)
        is_new = (filled < number) & ~(found == following[:, None]).any(axis=1)
        found[is_new, filled[is_new]] = following[is_new]
        filled += is_new
    return found


class BoundedRing:
    """Place on a ring, and pass on a session whose replica has more than its share of turns.

    Args:
        session_hashes: [sessions].
        excess: share of the mean that a replica may have above it.
        successors: replicas that are tried; then the first takes the session.
        virtual_nodes: of each replica.

    Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018.
    Deviation: loads are those at the start of a tick.
    """

    def __init__(
        self,
        session_hashes: Hashes,
        excess: float = 0.25,
        successors: int = 8,
        virtual_nodes: int = VIRTUAL_NODES,
    ) -> None:
        self._ring = Ring(session_hashes, virtual_nodes, successors)
        self._excess = excess
        self._members: Integers = np.empty(0, dtype=np.int64)

    def set_members(self, members: dict[int, int]) -> None:
        """Replace the members."""
        self._ring.set_members(members)
        self._members = np.fromiter(members, dtype=np.int64)

    def place(self, sessions: Integers, ongoing: Integers) -> Replicas:
        """Return the first replica clockwise that has room."""
        if not len(self._members):
            return np.full(len(sessions), -1, dtype=np.int16)
        tried = self._ring.candidates(sessions)
        total = int(ongoing[self._members].sum()) + len(sessions)
        bound = np.ceil((1 + self._excess) * total / len(self._members))
        has_room = ongoing[tried] < bound
        first = np.where(has_room.any(axis=1), has_room.argmax(axis=1), 0)
        return tried[np.arange(len(tried)), first]


class Rendezvous:
    """Place on the replica whose hash with the session is the highest.

    Args:
        session_hashes: [sessions].

    Source: Thaler, Ravishankar, "Using name-based mappings to increase hit rates", 1998.
    """

    def __init__(self, session_hashes: Hashes) -> None:
        self._session_hashes = session_hashes
        self._chosen: Replicas = np.full(len(session_hashes), -1, dtype=np.int16)
        self._members: Replicas = np.empty(0, dtype=np.int16)
        self._salts: Hashes = np.empty(0, dtype=np.uint64)

    def set_members(self, members: dict[int, int]) -> None:
        """Replace the members, and forget the choices among the old ones."""
        self._members = np.fromiter(members, dtype=np.int16)
        keys = [replica_keys(replica, generation, 1) for replica, generation in members.items()]
        self._salts = hashes(np.concatenate(keys)) if keys else np.empty(0, dtype=np.uint64)
        self._chosen[:] = -1

    def place(self, sessions: Integers, ongoing: Integers) -> Replicas:
        """Return the replica of the highest hash; each session's is computed once."""
        if not len(self._members):
            return np.full(len(sessions), -1, dtype=np.int16)
        new = sessions[self._chosen[sessions] < 0]
        for begin in range(0, len(new), 64):
            some = new[begin : begin + 64]
            self._chosen[some] = self._members[self._weights(some).argmax(axis=1)]
        return self._chosen[sessions]

    def _weights(self, sessions: Integers) -> Hashes:
        with np.errstate(over="ignore"):
            bits = self._session_hashes[sessions][:, None] ^ self._salts[None, :]
            bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            return (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
