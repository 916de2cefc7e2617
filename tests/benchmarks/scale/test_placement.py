"""Hashes and rings: Ray's own, balanced as theory says, and moving no more than they must."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scale.draws import Integers
from benchmarks.scale.murmur import RAY_SEED, hashes, replica_keys, session_hashes, session_names
from benchmarks.scale.placement import (
    VIRTUAL_NODES,
    BoundedRing,
    Placement,
    Rendezvous,
    Replicas,
    Ring,
)
from tests.benchmarks.scale.plain import murmur

SESSIONS, REPLICAS = 50_000, 50
EVERYONE = np.arange(SESSIONS)
IDLE = np.zeros(REPLICAS + 1, dtype=np.int64)


def members(number: int = REPLICAS) -> dict[int, int]:
    return dict.fromkeys(range(number), 0)


def placed(placement: Placement, of: dict[int, int], ongoing: Integers = IDLE) -> Replicas:
    placement.set_members(of)
    return placement.place(EVERYONE, ongoing)


def test_hashes_are_those_of_mmh3() -> None:
    # From mmh3 5.3.1: hash64(key, seed=0xF9B4CA77, signed=False)[0].
    known = {
        b"a": 7679774072590644845,
        b"abcdefgh": 16767635033133391683,
        b"abcdefghi": 12788149065644954318,
        b"0001g000:99": 13418784384224079089,
        b"abcdefghijklmno": 5682893172092095504,
    }
    found = hashes(np.array(list(known), dtype="S15"))
    assert found.tolist() == list(known.values()) == [murmur(key) for key in known]
    with pytest.raises(ValueError, match="keys=16 bytes are too long"):
        hashes(np.array([b"abcdefghijklmnop"]))


def test_hashes_of_sessions_are_those_of_their_names() -> None:
    names = session_names(np.array([0, 7, 1234, 999_999_999]))
    assert names.tolist() == [b"s000000000", b"s000000007", b"s000001234", b"s999999999"]
    assert session_hashes(40).tolist() == [murmur(f"s{k:09d}".encode()) for k in range(40)]


def test_the_ring_is_that_of_ray() -> None:
    router = pytest.importorskip("ray.serve.experimental.consistent_hash_router")
    assert (router.CONSISTENT_HASH_SEED, router.DEFAULT_NUM_VIRTUAL_NODES) == (
        RAY_SEED,
        VIRTUAL_NODES,
    )

    class Id:
        def __init__(self, number: int) -> None:
            self.number = number
            self.unique_id = replica_keys(number, 0, 1)[0].decode().partition(":")[0]

    theirs = router.ConsistentHashRouter.__new__(router.ConsistentHashRouter)
    theirs._num_virtual_nodes, theirs._num_fallback_replicas = VIRTUAL_NODES, 2
    theirs._deployment_id = "test"
    theirs._rebuild_ring(frozenset(Id(number) for number in range(REPLICAS)))
    ring = Ring(session_hashes(SESSIONS), successors=3)
    ring.set_members(members())
    ours = ring.candidates(np.arange(500))
    for session in range(500):
        ranked = theirs._lookup_ranked_replicas(f"s{session:09d}")
        assert [found.number for found in ranked] == ours[session].tolist()


@pytest.mark.parametrize("virtual_nodes", [1, 10, 100, 1000])
def test_a_ring_is_as_uneven_as_theory_says(virtual_nodes: int) -> None:
    """The arcs of a replica are about a gamma variable: their sum deviates by 1 / sqrt(v).

    The arcs of v random places on a ring of nv: variance of a share, times n^2, is
    (n - 1) / (n v + 1) n, which is near 1 / v. The sampled sessions add n / sessions.
    """
    found = placed(Ring(session_hashes(SESSIONS), virtual_nodes), members())
    load = np.bincount(found, minlength=REPLICAS) / SESSIONS * REPLICAS
    n, v = REPLICAS, virtual_nodes
    expected = np.sqrt((n - 1) / (n * v + 1) * 1.0 + n / SESSIONS)
    # 50 shares estimate their own deviation within 10 %; arcs of one place vary more.
    assert load.std() == pytest.approx(expected, rel=0.3)


def test_rendezvous_is_as_even_as_dice() -> None:
    found = placed(Rendezvous(session_hashes(SESSIONS)), members())
    load = np.bincount(found, minlength=REPLICAS) / SESSIONS * REPLICAS
    assert load.std() == pytest.approx(np.sqrt(REPLICAS / SESSIONS), rel=0.3)


@pytest.mark.parametrize("kind", [Ring, Rendezvous])
def test_only_the_sessions_of_a_changed_replica_move(kind: type[Ring] | type[Rendezvous]) -> None:
    placement = kind(session_hashes(SESSIONS))
    before = placed(placement, members())
    fewer = {replica: 0 for replica in members() if replica != 3}
    without = placed(placement, fewer)
    assert ((before != without) == (before == 3)).all()
    more = placed(placement, members(REPLICAS + 1))
    assert (more[before != more] == REPLICAS).all()
    assert 0 < (before != more).sum() < 3 * SESSIONS / REPLICAS
    again = placed(placement, members())
    assert (again == before).all()
    renewed = placed(placement, {**members(), 3: 1})
    moved = before != renewed
    assert moved[before == 3].mean() > 0.9  # a new id owns other arcs
    assert 0 < moved[before != 3].mean() < 3 / REPLICAS


def test_a_bounded_ring_passes_on_what_is_too_much() -> None:
    hashed = session_hashes(SESSIONS)
    free = placed(Ring(hashed), members())
    bounded = BoundedRing(hashed, excess=0.25, successors=3)
    assert (placed(bounded, members()) == free).all()
    ongoing = IDLE.copy()
    ongoing[7] = 2 * SESSIONS // REPLICAS
    busy = placed(bounded, members(), ongoing)
    assert not (busy == 7).any()
    assert (busy[free != 7] == free[free != 7]).all()
    third = Ring(hashed, successors=3)
    third.set_members(members())
    assert (busy[free == 7] == third.candidates(EVERYONE[free == 7])[:, 1]).all()


def test_without_members_there_is_no_place() -> None:
    hashed = session_hashes(SESSIONS)
    for placement in (Ring(hashed), Rendezvous(hashed), BoundedRing(hashed)):
        assert (placed(placement, {}) == -1).all()
