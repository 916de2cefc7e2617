"""Tell how far a session supports a question, before a model answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from streamingllm.memory.ranking import rarity
from streamingllm.memory.records import Recalled

Words = Callable[[str], list[str]]
# Words about the conversation itself, which is there whether or not anybody names it.
_ABOUT_TALKING = """
ask asked chat conversation conversations discuss discussed earlier know mention mentioned previous
previously recall recommend recommended remember remembered remind reminded said suggest suggested
talk talked talking tell told want wonder wondering
"""


@dataclass(frozen=True)
class Support:
    """Say which part of a question's words a session has; a rare word weighs more.

    Args:
        unknown_words: that nobody has said, stemmed.
        unknown_share: of the question, that these words are.
        named_share: of the question, in the best piece of the one speaker whom it names; None if it
            names none, or several.
        others_share: of the question, in the best piece of other speakers.
    """

    unknown_words: tuple[str, ...] = ()
    unknown_share: float = 0.0
    named_share: float | None = None
    others_share: float = 0.0

    @property
    def misplaced_share(self) -> float:
        """Share of the question that others have said more than the speaker whom it names."""
        return 0.0 if self.named_share is None else self.others_share - self.named_share


@dataclass(frozen=True)
class Guard:
    """Mark questions about something that nobody has said, or that another speaker has.

    Args:
        max_unknown_share: of a question's words, by rarity; more are a mark.
        max_misplaced_share: of the question, that others have said more than the named speaker.
    """

    max_unknown_share: float = 0.5
    max_misplaced_share: float = 0.1

    def is_not_found(self, support: Support) -> bool:
        """Tell whether a question refers to something that is not there."""
        return (
            support.unknown_share > self.max_unknown_share
            or support.misplaced_share > self.max_misplaced_share
        )


def support_of(
    question: Sequence[str],
    counts: Mapping[str, int],
    num_pieces: int,
    found: Iterable[Recalled],
    words_of: Words,
) -> Support:
    """Return the support of a question.

    Args:
        question: its words.
        counts: how many pieces of the session have each, if any has.
        num_pieces: of the session.
        found: pieces that the question is about.
        words_of: reads the words of a text.
    """
    pieces = list(found)
    names = {name: frozenset(words_of(name)) for name in {piece.speaker for piece in pieces}}
    asked = frozenset(question)
    named = [name for name, parts in names.items() if parts & asked]
    about = asked.difference(words_of(_ABOUT_TALKING), *names.values())
    weights = {word: rarity(counts.get(word, 0), num_pieces) for word in about}
    total = sum(weights.values())
    unknown = tuple(
        word for word in dict.fromkeys(question) if word in about and word not in counts
    )
    if not total:
        return Support(unknown)
    unknown_share = sum(weights.get(word, 0.0) for word in unknown) / total
    if len(named) != 1:
        return Support(unknown, unknown_share)
    shares = [(p.speaker, _share(weights, words_of(p.text)) / total) for p in pieces]
    return Support(
        unknown,
        unknown_share,
        max(share for speaker, share in shares if speaker == named[0]),
        max((share for speaker, share in shares if speaker != named[0]), default=0.0),
    )


def _share(weights: Mapping[str, float], words: Iterable[str]) -> float:
    return sum(weights.get(word, 0.0) for word in frozenset(words))
