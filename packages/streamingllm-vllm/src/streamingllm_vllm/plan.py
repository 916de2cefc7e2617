"""Plan of a step: rows of queries, their block tables, and keys to copy before attention."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamingllm_vllm.positions import PositionBases
from streamingllm_vllm.rule import Row, SinkWindowRule
from streamingllm_vllm.scratch import TurnedSinks

Integers = NDArray[np.int64]


@dataclass
class StepPlan:
    """Collect what a step gives to the attention kernel.

    Args:
        query_ends: queries of all rows up to and including each row.
        lengths: visible tokens of the last query of each row.
        tables: block ids of each row, in the order of the cache.
        bases: what is subtracted from the positions of each request.
        copies: slots to read, slots to write, and the positions by which keys are turned.
    """

    query_ends: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tables: list[Integers] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)
    copies: list[tuple[Integers, Integers, int]] = field(default_factory=list)


class StepPlanner:
    """Plan steps: each row of queries sees [its sinks | its window] as a dense causal sequence.

    Args:
        rule: which tokens are visible.
        bases: positions of each request.
        turned_sinks: scratch blocks.
    """

    def __init__(
        self, rule: SinkWindowRule, bases: PositionBases, turned_sinks: TurnedSinks
    ) -> None:
        self._rule = rule
        self._bases = bases
        self._turned_sinks = turned_sinks
        self._num_sink_blocks = rule.num_sink_tokens // rule.block_size
        self._offsets = np.arange(rule.block_size)

    def plan(self, query_starts: Integers, ends: Integers, block_tables: Integers) -> StepPlan:
        """Return the plan of a step.

        Args:
            query_starts: number of queries before each request, and of all, [requests + 1].
            ends: stream position after the last query of each request, [requests].
            block_tables: block ids of each request by stream position, [requests, blocks].
        """
        step = StepPlan()
        self._turned_sinks.begin_step()
        counts = np.diff(query_starts).tolist()
        for index, (count, end) in enumerate(zip(counts, ends.tolist(), strict=True)):
            step.bases.append(self._plan_request(step, end - count, end, block_tables[index]))
        return step

    def _plan_request(self, step: StepPlan, first: int, end: int, table: Integers) -> int:
        if first == end:
            return 0
        request = int(table[0])
        if first < self._rule.num_sink_tokens:
            self._turned_sinks.forget(request)
        base, moved = self._bases.enter(request, first, end)
        if moved:
            window = np.arange(self._rule.window_start(first), first)
            slots = self._slots(table, window)
            step.copies.append((slots, slots, -moved))
        for row in self._rule.rows(first, end):
            self._plan_row(step, row, base, request, table)
        return base

    def _plan_row(self, step: StepPlan, row: Row, base: int, request: int, table: Integers) -> None:
        block_size = self._rule.block_size
        blocks = table[: -(-row.end // block_size)]
        if row.num_evicted_tokens:
            sinks = table[: self._num_sink_blocks]
            distance = row.num_evicted_tokens - base
            if distance:
                sinks = self._sinks_at(step, request, sinks, distance)
            window = self._num_sink_blocks + row.num_evicted_tokens // block_size
            blocks = np.concatenate((sinks, blocks[window:]))
        done = step.query_ends[-1] if step.query_ends else 0
        step.query_ends.append(done + row.end - row.first)
        step.lengths.append(row.num_visible_tokens)
        step.tables.append(blocks)

    def _sinks_at(self, step: StepPlan, request: int, sinks: Integers, distance: int) -> Integers:
        scratch, is_new = self._turned_sinks.claim(request, distance)
        turned = np.array(scratch)
        if is_new:
            step.copies.append((self._block_slots(sinks), self._block_slots(turned), distance))
        return turned

    def _block_slots(self, blocks: Integers) -> Integers:
        return (blocks[:, None].astype(np.int64) * self._rule.block_size + self._offsets).ravel()

    def _slots(self, table: Integers, positions: Integers) -> Integers:
        blocks = table[positions // self._rule.block_size].astype(np.int64)
        return blocks * self._rule.block_size + positions % self._rule.block_size
