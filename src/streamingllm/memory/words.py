"""Words of a text, as an index knows them: stemmed, without stop words."""

from __future__ import annotations

import time

import apsw

_STOP_WORDS = """
a about above after again against all also am an and any are aren as at be because been before being
below between both but by can cannot could couldn d did didn do does doesn doing don down during
each few for from further had hadn has hasn have haven having he her here hers herself him himself
his how i if in into is isn it its itself just ll m me might more most must my myself no nor not now
of off on once only or other our ours ourselves out over own re s same shall she should shouldn so
some such t than that the their theirs them themselves then there these they this those through to
too under until up upon us ve very was wasn we were weren what when where which while who whom whose
why will with won would wouldn you your yours yourself yourselves
"""
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MAX_WORD_CHARACTERS = 64


class WordReader:
    """Read the words of texts by the tokenizers of FTS5: unicode61 and Porter's stemmer.

    Args:
        database: that has FTS5.
    """

    def __init__(self, database: apsw.Connection) -> None:
        self._tokenizer = database.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
        self._stop_words: frozenset[str] = frozenset()
        self._stop_words = frozenset(self.words(_STOP_WORDS))

    def words(self, text: str) -> list[str]:
        """Return the words of a text in their order, without stop words."""
        found = self._tokenizer(
            text.encode(errors="replace"),
            apsw.FTS5_TOKENIZE_DOCUMENT,
            None,
            include_offsets=False,
            include_colocated=False,
        )
        # A word as long as this is a number of bytes in disguise, such as an image.
        return [
            word
            for word in map(str, found)
            if word not in self._stop_words and len(word) <= _MAX_WORD_CHARACTERS
        ]


def date_text(seconds: float) -> str:
    """Return the date of a time since 1970 in words, in UTC; "" for times that have none."""
    try:
        at = time.gmtime(seconds)
    except (OverflowError, ValueError, OSError):
        return ""
    return f"{_DAYS[at.tm_wday]} {at.tm_mday} {_MONTHS[at.tm_mon - 1]} {at.tm_year}"
