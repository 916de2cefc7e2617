"""Perplexity of texts, each one stream, or all of them one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from streamingllm.checks import check_integer
from streamingllm.evaluation.scoring import feed_scored
from streamingllm.evaluation.tasks.base import Job, Part, Task

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenizedText:
    """A text as token ids.

    Args:
        name: for the report.
        ids: int64, [T], at least two tokens.
    """

    name: str
    ids: Tensor


class PerplexityTask(Task):
    """Score every token of texts except each text's first.

    Args:
        texts: each is a stream of its own.
        segment_tokens: tokens of a part.

    Source: Xiao et al. (arXiv 2309.17453), section 4.1. The paper reads the concatenated test set
    of PG19 as one stream; pass it as one text.
    """

    name: ClassVar[str] = "perplexity"
    sample_noun: ClassVar[str] = "text"
    part_noun: ClassVar[str] = "segment"
    primary: ClassVar[str] = "perplexity"
    exponential: ClassVar[frozenset[str]] = frozenset({"perplexity"})

    def __init__(self, texts: Sequence[TokenizedText], segment_tokens: int = 4096) -> None:
        check_integer("segment_tokens", segment_tokens, 2)
        self.texts = texts
        self.segment_tokens = segment_tokens

    @property
    def num_samples(self) -> int:
        """Texts."""
        return len(self.texts)

    def num_parts(self, sample: int) -> int:
        """Return how many segments a text has."""
        return -(-len(self.texts[sample].ids) // self.segment_tokens)

    def settings(self) -> dict[str, Any]:
        """Return names and lengths of the texts, and the segment."""
        texts = [{"name": text.name, "tokens": len(text.ids)} for text in self.texts]
        return {"texts": texts, "segment_tokens": self.segment_tokens}

    def run(self, job: Job) -> None:
        """Score the segments that are left of a text."""
        ids = self.texts[job.sample].ids
        for number in range(len(job.parts), self.num_parts(job.sample)):
            first = number * self.segment_tokens
            nll = feed_scored(job.stream, ids[first : first + self.segment_tokens])
            total = (float(nll.double().sum()), float(len(nll)))
            facts = {"first_token": first, "cache_bytes": job.stream.nbytes}
            job.add(Part({"perplexity": total}, facts))
