"""Rule of visibility: which tokens a query sees when blocks of tokens leave the window."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Describe consecutive queries of one request that see the same first tokens.

    Args:
        first: stream position of the first query.
        end: stream position after the last query.
        num_evicted_tokens: tokens between the sinks and the window of these queries.
    """

    first: int
    end: int
    num_evicted_tokens: int

    @property
    def num_visible_tokens(self) -> int:
        """Tokens that the last query sees, itself included."""
        return self.end - self.num_evicted_tokens


@dataclass(frozen=True)
class SinkWindowRule:
    """Say which tokens are visible: n sinks, and a window that begins at a multiple of a block.

    The window of the query at stream position t begins at the first multiple of `block_size`
    within [t - m + 1, t]. Because m is a multiple as well, the beginning moves exactly where a
    block of queries begins. This is `streamingllm.StreamConfig(n, m, eviction_grain=block_size)`.

    Args:
        num_sink_tokens: first tokens kept for ever (n), a multiple of `block_size`.
        window_size: most recent tokens a query sees, itself included (m), a multiple as well.
        block_size: tokens of a block of vLLM's cache.
    """

    num_sink_tokens: int
    window_size: int
    block_size: int

    @property
    def cache_size(self) -> int:
        """Tokens that a query sees at most: n + m."""
        return self.num_sink_tokens + self.window_size

    def window_start(self, position: int) -> int:
        """Return the stream position at which the window of the query at `position` begins."""
        oldest = max(0, position - self.window_size + 1)
        return -(-oldest // self.block_size) * self.block_size

    def num_evicted_tokens(self, position: int) -> int:
        """Return the tokens between the sinks and the window of the query at `position`."""
        return max(0, self.window_start(position) - self.num_sink_tokens)

    def rows(self, first: int, end: int) -> list[Row]:
        """Split the queries of a chunk wherever the beginning of the window moves.

        The split depends on stream positions only, so no answer depends on the chunks.

        Args:
            first: stream position of the first query of the chunk.
            end: stream position after its last query.
        """
        rows = []
        while first < end:
            next_block = (first // self.block_size + 1) * self.block_size
            stop = min(end, max(self.cache_size, next_block))
            rows.append(Row(first, stop, self.num_evicted_tokens(first)))
            first = stop
        return rows

    def most_rows(self, most_tokens: int, most_requests: int) -> int:
        """Return the rows of a step at most: one block more than full ones for each request.

        Args:
            most_tokens: tokens of all requests in a step.
            most_requests: requests in a step.
        """
        return min(most_tokens, most_tokens // self.block_size + 2 * most_requests)
