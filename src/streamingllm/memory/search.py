"""Find pieces of a session by words, with bounded work."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from streamingllm.memory.log import MemoryLog
from streamingllm.memory.ranking import Integers, Totals, Wanted, WindowRanking, rarity
from streamingllm.memory.records import Recalled
from streamingllm.memory.settings import MemorySettings
from streamingllm.memory.support import Support, support_of

_MAX_SUPPORTING = 64  # pieces that are read to tell how far a question is supported
_MAX_ROUNDS = 4  # further ones are for budgets and visible parts that leave the first ones short


class MemorySearch:
    """Search the sessions of a log, within transactions.

    Rare words are read whole. A word that too many pieces have is read for the newest of them; in
    windows that other words have found it counts wherever it stands.

    Args:
        log: of pieces.
        settings: bounds.
    """

    def __init__(self, log: MemoryLog, settings: MemorySettings) -> None:
        self._log = log
        self._settings = settings

    def find(
        self,
        session_id: str,
        query: str,
        exclude_positions: Container[int],
        vector: npt.NDArray[np.float32] | None = None,
    ) -> Iterator[Recalled]:
        """Yield pieces that score above zero, the best first; equal ones in their order.

        Args:
            session_id: whose pieces they are.
            query: any text.
            exclude_positions: pieces there count for their neighbours and are not yielded.
            vector: of the query, of length 1.
        """
        if (known := self._log.session(session_id)) is None:
            return
        session, totals = known
        wanted, counts = self._wanted(session, totals, query)
        ranking = WindowRanking(self._settings, totals, wanted)
        windows = ranking.candidates(self._postings(wanted, counts))
        for number in range(_MAX_ROUNDS):
            first = number * self._settings.max_windows
            some = windows[first : first + self._settings.max_windows]
            if not len(some):
                break
            yield from self._scored(session, ranking, some, exclude_positions, vector)

    def unknown_words(self, session_id: str, query: str) -> list[str]:
        """Return words of a query that no piece of a session has."""
        words = list(dict.fromkeys(self._log.reader.words(query)))
        if (known := self._log.session(session_id)) is None:
            return words
        found = self._log.index.find(known[0], words)
        return [word for word in words if word not in found]

    def support(
        self, session_id: str, query: str, vector: npt.NDArray[np.float32] | None = None
    ) -> Support:
        """Return how far a session supports a question; see `find`."""
        words = self._log.reader.words(query)
        if (known := self._log.session(session_id)) is None:
            return support_of(words, {}, 0, (), self._log.reader.words)
        counts = {w: count for w, (_, count) in self._log.index.find(known[0], words).items()}
        found = islice(self.find(session_id, query, (), vector), _MAX_SUPPORTING)
        return support_of(words, counts, known[1].num_pieces, found, self._log.reader.words)

    def _wanted(self, session: int, totals: Totals, query: str) -> tuple[list[Wanted], list[int]]:
        """Return the rarest words of a query and how many pieces have each."""
        found = self._log.index.find(session, dict.fromkeys(self._log.reader.words(query)))
        rarest = sorted(found.values(), key=lambda word: (word[1], word[0]))
        rarest = rarest[: self._settings.max_query_words]
        wanted = [Wanted(number, rarity(count, totals.num_pieces)) for number, count in rarest]
        return wanted, [count for _, count in rarest]

    def _postings(self, wanted: list[Wanted], counts: list[int]) -> list[Integers]:
        """Return the pieces that have each word, the rarest word first, as far as bounds allow."""
        left, having = self._settings.max_postings, []
        for at, (word, count) in enumerate(zip(wanted, counts, strict=True)):
            limit = min(count, left // (len(wanted) - at))
            having.append(self._log.numbers(self._log.index.newest_rows(word.number, limit)))
            left -= limit
        return having

    def _scored(
        self,
        session: int,
        ranking: WindowRanking,
        windows: Integers,
        exclude_positions: Container[int],
        vector: npt.NDArray[np.float32] | None,
    ) -> Iterator[Recalled]:
        pieces = self._log.words(session, ranking.pieces_of(windows))
        scores = ranking.scores(windows, pieces)
        if vector is not None:
            similar = self._log.similarities(session, pieces.numbers, vector)
            scores = np.where(scores > 0, scores + self._settings.encoder_weight * similar, 0)
        for at in np.lexsort((pieces.numbers, -scores)).tolist():
            if scores[at] > 0 and pieces.positions[at] not in exclude_positions:
                yield self._log.recalled(session, int(pieces.numbers[at]), float(scores[at]))
