"""How much of a prompt a step prefills, on machines whose speed is given."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from streamingllm.engine.prefill_budget import BucketSizes, PrefillBudget, PrefillWork


def test_bucket_sizes_grow_as_far_as_time_allows() -> None:
    buckets = BucketSizes((16, 32, 64, 128, 256))
    sizes = []
    for _ in range(20):
        sizes.append(buckets.largest(0.024, 256)[0])
        buckets.measured(sizes[-1], 0.005 + sizes[-1] * 1e-4)
    assert sizes[:8:2] == [16, 32, 64, 128]  # each twice; 256 tokens would take 30.6 ms
    assert set(sizes[8:]) == {128}


def test_the_first_time_of_a_size_does_not_count() -> None:
    buckets = BucketSizes((16, 32))
    buckets.measured(16, 5.0)
    assert not buckets.is_known(16)
    buckets.measured(16, 0.005)
    assert buckets.largest(0.006, 16) == (16, 0.005)


def test_a_size_with_one_slow_measurement_is_tried_again() -> None:
    buckets = BucketSizes((16, 32))
    for _ in range(2):
        buckets.measured(buckets.largest(0.01, 32)[0], 0.02)
    assert buckets.largest(0.01, 32) == (0, 0.0)
    assert Counter(buckets.largest(0.01, 32)[0] for _ in range(200))[16] > 0


def test_no_larger_size_is_taken_than_there_are_tokens_for() -> None:
    buckets = BucketSizes((16, 32, 64))
    for _ in range(5):
        size, _ = buckets.largest(1.0, 20)
        buckets.measured(min(size, 20), 0.002)
    assert size == 32
    assert buckets.largest(1.0, 20) == (32, 0.002)


@dataclass
class Machine:
    """Seconds that steps take."""

    step: float
    per_mixed_token: float
    per_chunk: float
    per_token: float

    def prefill(
        self, budget: PrefillBudget, num_decoding: int = 8, num_joining: int = 2000
    ) -> tuple[PrefillWork, float]:
        """Do one step; return its work and how long it took."""
        work = budget.next(num_decoding, num_joining=num_joining, num_pending=2000)
        if work.how == "mixed":
            seconds = self.step + work.num_tokens * self.per_mixed_token
            budget.stepped(num_decoding, seconds, work.num_tokens)
            return work, seconds
        seconds = self.per_chunk + work.num_tokens * self.per_token
        budget.stepped(num_decoding, self.step)
        budget.prefilled(work.num_tokens, seconds)
        return work, self.step + seconds


@pytest.mark.parametrize(
    ("machine", "best"),
    [
        (Machine(0.010, 0.0004, 0.015, 0.0003), PrefillWork("mixed", 16)),
        (Machine(0.030, 0.0020, 0.010, 0.0001), PrefillWork("chunk", 128)),
        (Machine(0.010, 0.0200, 0.015, 0.0003), PrefillWork("mixed", 1)),
    ],
)
def test_the_better_way_to_prefill_is_found(machine: Machine, best: PrefillWork) -> None:
    budget = PrefillBudget(chunk_size=512, max_stall=2.0)
    steps = [machine.prefill(budget) for _ in range(1000)]
    (found, _), *_ = Counter(work for work, _ in steps).most_common()
    assert found == best
    if best.num_tokens > 1:
        assert sorted(seconds for _, seconds in steps)[950] <= 2 * machine.step
    at_once = budget.next(0, num_joining=0, num_pending=2000)
    assert at_once == PrefillWork("chunk", 512)


def test_few_tokens_that_can_join_leave_a_prompt_to_chunks() -> None:
    budget, machine = PrefillBudget(512, 2.0), Machine(0.010, 0.0004, 0.005, 0.0001)
    works = [machine.prefill(budget, num_joining=1)[0] for _ in range(1000)]
    assert {work.num_tokens for work in works if work.how == "mixed"} == {0, 1}
    (best, _), *_ = Counter(works).most_common()
    assert best == PrefillWork("chunk", 16)


def test_many_prompts_that_can_join_are_faster_than_short_chunks() -> None:
    machine = Machine(0.005, 0.00001, 0.030, 0.00001)  # much time for a pass, little for a token
    for num_joining, best in ((1, PrefillWork("chunk", 512)), (100, PrefillWork("mixed", 128))):
        budget = PrefillBudget(512, 2.0, unnoticed_seconds=0.06)
        for _ in range(2):
            machine.prefill(budget, num_decoding=0)
        works = Counter(machine.prefill(budget, num_joining=num_joining)[0] for _ in range(1000))
        assert works.most_common(1)[0][0] == best


def test_no_time_at_all() -> None:
    budget, machine = PrefillBudget(chunk_size=64, max_stall=1.0), Machine(0.01, 0.001, 0.01, 0.001)
    works = Counter(machine.prefill(budget)[0] for _ in range(100))
    assert works[PrefillWork("mixed", 1)] > 90
