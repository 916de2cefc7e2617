"""Positions that a model sees: small, whatever the stream position is."""

from __future__ import annotations

from streamingllm_vllm.rule import SinkWindowRule


class PositionBases:
    """Hold for each request what is subtracted from its stream positions.

    A rotary table ends. Before a chunk passes its end, the base moves up as far as the rule
    allows. The keys in the window are turned back by the same number of positions.

    Args:
        rule: which tokens are visible.
        table_size: positions of the model's rotary table.
    """

    def __init__(self, rule: SinkWindowRule, table_size: int) -> None:
        self._rule = rule
        self._table_size = table_size
        self._bases: dict[int, int] = {}

    def enter(self, request: int, first: int, end: int) -> tuple[int, int]:
        """Return the base of a chunk, and by how much it has moved.

        Args:
            request: identity of the request, here its first block.
            first: stream position of the chunk's first token; 0 begins a request.
            end: stream position after its last token.
        """
        before = self._bases.get(request, 0) if first else 0
        base = before
        if end - before > self._table_size:
            base = self._rule.num_evicted_tokens(first)
        self._bases[request] = base
        return base, base - before
