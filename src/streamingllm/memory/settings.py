"""Settings of a memory: windows of turns, BM25, and bounds on the work of one search."""

from __future__ import annotations

from dataclasses import dataclass

from streamingllm.checks import check_integer
from streamingllm.errors import ConfigError


@dataclass(frozen=True)
class MemorySettings:
    """Decide how a memory cuts, scores and searches what was said.

    Args:
        piece_characters: longest piece of a message; a longer message is cut into pieces.
        window_pieces: pieces of a window, which are scored together.
        stride_pieces: pieces from the start of a window to the start of the next one.
        k1: of BM25; the greater, the more repeated words count.
        b: of BM25, from 0 to 1; the greater, the less long windows score.
        own_weight: of the score of a piece alone, compared with its best window.
        encoder_weight: of the similarity of a piece to the query, if there is an encoder; a rare
            word adds about 5.
        max_query_words: different words of a query that count; the rarest ones are taken.
        max_postings: entries of the index that one search reads.
        max_windows: windows that are scored exactly at once.

    Raises:
        ConfigError: a value is out of range.

    Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009).
    Deviation: a word counts at most once a piece, and the rarity of words is that among pieces.
    """

    piece_characters: int = 400
    window_pieces: int = 4
    stride_pieces: int = 2
    k1: float = 1.2
    b: float = 0.5
    own_weight: float = 0.3
    encoder_weight: float = 12.0
    max_query_words: int = 32
    max_postings: int = 8192
    max_windows: int = 64

    def __post_init__(self) -> None:
        for name in ("piece_characters", "window_pieces", "max_query_words", "max_windows"):
            check_integer(name, getattr(self, name), 1)
        check_integer("stride_pieces", self.stride_pieces, 1, self.window_pieces)
        check_integer("max_postings", self.max_postings, self.max_query_words)
        for name, high in (
            ("k1", 100.0),
            ("b", 1.0),
            ("own_weight", 100.0),
            ("encoder_weight", 1e3),
        ):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ConfigError(f"{name}={value!r} is out of range; choose from 0 to {high}")
