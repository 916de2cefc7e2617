"""Plans of steps against a plain list of visible tokens; needs no vLLM."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamingllm_vllm.plan import StepPlanner
from streamingllm_vllm.positions import PositionBases
from streamingllm_vllm.rule import SinkWindowRule
from streamingllm_vllm.scratch import TurnedSinks


def visible(t: int, n: int, m: int, block: int) -> list[int]:
    """Return the stream positions that the query at t sees, from the definition."""
    oldest = max(0, t - m + 1)
    start = next(j for j in range(oldest, t + 2 * block) if j % block == 0)
    return sorted({*range(min(n, t + 1)), *range(min(start, t + 1), t + 1)})


class Pool:
    """Stand in for vLLM's blocks and keys: the token of each slot and the position of its key."""

    def __init__(self, rule: SinkWindowRule, table_size: int, num_sets: int) -> None:
        self.rule, self.table_size = rule, table_size
        width = rule.num_sink_tokens // rule.block_size
        ids = range(1, num_sets * width + 1)
        self.sets = [tuple(ids[k * width : (k + 1) * width]) for k in range(num_sets)]
        self.next_block = num_sets * width + 1
        self.tokens: dict[int, tuple[int, int]] = {}  # slot: stream position, turned position
        self.planner = StepPlanner(rule, PositionBases(rule, table_size), TurnedSinks(self.sets))
        self.tables: dict[str, list[int]] = {}
        self.most_rows = 0

    def step(self, chunks: dict[str, tuple[int, int]]) -> dict[tuple[str, int], dict[int, int]]:
        """Return the distance of each visible token for each query of a step."""
        block = self.rule.block_size
        for name, (first, end) in chunks.items():
            table = self.tables.setdefault(name, [])
            freed = self.rule.window_start(first) // block
            for index in range(self.rule.num_sink_tokens // block, min(freed, len(table))):
                table[index] = 0
            while len(table) * block < end:
                table.append(self.next_block)
                self.next_block += 1
        width = max(map(len, self.tables.values()))
        tables = np.array(
            [self.tables[name] + [0] * (width - len(self.tables[name])) for name in chunks]
        )
        counts = [end - first for first, end in chunks.values()]
        starts = np.array([0, *np.cumsum(counts)])
        plan = self.planner.plan(starts, np.array([end for _, end in chunks.values()]), tables)
        return self.attend(chunks, plan, tables)

    def attend(self, chunks, plan, tables):
        block = self.rule.block_size
        queries = []
        for (name, (first, end)), base, table in zip(
            chunks.items(), plan.bases, tables, strict=True
        ):
            for t in range(first, end):
                self.tokens[int(table[t // block]) * block + t % block] = (t, t - base)
                queries.append((name, t, t - base))
        for sources, targets, distance in plan.copies:
            for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
                token, position = self.tokens[source]
                self.tokens[target] = (token, position + distance)
        found: dict[tuple[str, int], dict[int, int]] = {}
        begin = 0
        self.most_rows = max(self.most_rows, len(plan.lengths))
        for end, length, table in zip(plan.query_ends, plan.lengths, plan.tables, strict=True):
            slots = [b * block + k for b in table.tolist() for k in range(block)]
            for index in range(begin, end):
                name, t, position = queries[index]
                keys = [self.tokens[s] for s in slots[: length - (end - 1 - index)]]
                assert 0 <= position < self.table_size
                found[name, t] = {token: position - at for token, at in keys}
                assert len(found[name, t]) == len(keys)
            begin = end
        return found


def expected(t: int, rule: SinkWindowRule) -> dict[int, int]:
    seen = visible(t, rule.num_sink_tokens, rule.window_size, rule.block_size)
    return {token: len(seen) - 1 - index for index, token in enumerate(seen)}


RULES = [SinkWindowRule(4, 8, 4), SinkWindowRule(8, 16, 4), SinkWindowRule(12, 4, 4)]


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), table_size=st.sampled_from([64, 1000]))
def test_each_query_sees_its_tokens_at_their_distance_in_the_cache(
    rule: SinkWindowRule, seed: int, table_size: int
) -> None:
    choose = random.Random(seed)
    most_tokens, names = table_size - rule.cache_size, "abc"
    pool = Pool(rule, table_size, rule.most_rows(most_tokens, len(names)))
    ends = dict.fromkeys(names, 0)
    for _ in range(40):
        chunks, left = {}, most_tokens
        for name in choose.sample(names, choose.randint(1, 3)):
            count = min(left, choose.choice([1, 1, 2, 5, 9, 30]))
            if count:
                chunks[name] = (ends[name], ends[name] + count)
                ends[name] += count
                left -= count
        found = pool.step(chunks)
        for (_, t), distances in found.items():
            assert distances == expected(t, rule)
    assert pool.most_rows <= rule.most_rows(most_tokens, len(names))


def test_a_block_id_used_again_begins_a_new_request() -> None:
    rule = RULES[0]
    pool = Pool(rule, 32, rule.most_rows(8, 1))
    for first in range(60):
        pool.step({"a": (first, first + 1)})
    table = pool.tables["a"]
    pool.tables["b"] = [table[0]]
    for first in range(0, 60, 5):
        found = pool.step({"b": (first, first + 5)})
        assert all(found["b", t] == expected(t, rule) for t in range(first, first + 5))


@settings(deadline=None)
@given(m_blocks=st.integers(1, 6), n_blocks=st.integers(1, 3), t=st.integers(0, 300))
def test_rule(m_blocks: int, n_blocks: int, t: int) -> None:
    rule = SinkWindowRule(8 * n_blocks, 8 * m_blocks, 8)
    start = rule.window_start(t)
    assert start % 8 == 0
    assert max(0, t - rule.window_size + 1) <= start < max(0, t - rule.window_size + 1) + 8
    assert rule.num_evicted_tokens(t) == max(0, start - rule.num_sink_tokens)


@settings(deadline=None)
@given(first=st.integers(0, 200), count=st.integers(1, 200))
def test_rows_cover_a_chunk_and_move_only_at_blocks(first: int, count: int) -> None:
    rule = SinkWindowRule(8, 32, 8)
    rows = rule.rows(first, first + count)
    assert [t for row in rows for t in range(row.first, row.end)] == list(
        range(first, first + count)
    )
    for row in rows:
        assert {rule.num_evicted_tokens(t) for t in range(row.first, row.end)} == {
            row.num_evicted_tokens
        }
    assert all(row.first % 8 == 0 for row in rows[1:])


def test_a_step_of_too_many_rows_is_an_error() -> None:
    sinks = TurnedSinks([(1,), (2,)])
    assert sinks.claim(7, 4) == ((2,), True)
    assert sinks.claim(7, 4) == ((2,), False)
    assert sinks.claim(8, 4) == ((1,), True)
    with pytest.raises(RuntimeError, match="more than 2 rows"):
        sinks.claim(9, 4)


def test_the_oldest_set_is_overwritten_first() -> None:
    sinks = TurnedSinks([(1,), (2,)])
    sinks.claim(7, 4)
    sinks.claim(8, 4)
    sinks.begin_step()
    assert sinks.claim(7, 4)[1] is False
    assert sinks.claim(9, 4) == ((1,), True)
    sinks.forget(7)
    assert sinks.claim(7, 4) == ((2,), True)
