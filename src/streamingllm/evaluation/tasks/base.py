"""Protocol of a task: samples of parts, each with scores that add up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from streamingllm.evaluation.caches import CacheChoice

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel
    from streamingllm.stream import Stream


@dataclass(frozen=True)
class Part:
    """Scores of one part of a sample: a query, a question, a segment of a text.

    Args:
        totals: (sum, count) of each metric; a metric of a sample is the ratio of its sums.
        facts: JSON-able details for readers of the report.
    """

    totals: Mapping[str, tuple[float, float]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a file."""
        totals = {name: list(pair) for name, pair in self.totals.items()}
        return {"totals": totals, "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Part:
        """Return the part that `to_json` described."""
        totals = {name: (float(a), float(b)) for name, (a, b) in fields["totals"].items()}
        return cls(totals, fields["facts"])


class Job:
    """One sample under one cache, done so far and still to do.

    Args:
        lm: model and tokenizer.
        cache: strategy and settings.
        sample: number of the sample.
        parts: done in an earlier run.
        stream: as it was after `parts`; None for one that has not begun.
        on_part: called after each new part.

    Attributes:
        parts: done by now.
    """

    def __init__(
        self,
        lm: LanguageModel,
        cache: CacheChoice,
        sample: int,
        *,
        parts: Sequence[Part] = (),
        stream: Stream | None = None,
        on_part: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.lm = lm
        self.cache = cache
        self.sample = sample
        self.parts = list(parts)
        self._stream = stream
        self._on_part = on_part

    @property
    def stream(self) -> Stream:
        """The sample's stream, made on first use."""
        if self._stream is None:
            self._stream = self.new_stream()
        return self._stream

    @property
    def has_stream(self) -> bool:
        """Tell whether the sample uses one stream for all its parts."""
        return self._stream is not None

    def new_stream(self) -> Stream:
        """Return an empty stream with the job's cache."""
        from streamingllm.stream import Stream

        return Stream(self.lm.model, self.cache.config)

    def add(self, part: Part) -> None:
        """Count a part as done; the job may end here and go on in another run."""
        self.parts.append(part)
        self._on_part(self)


class Task(ABC):
    """A task that scores a model under a cache.

    A sample is independent of the others, so intervals resample samples. Its parts are done in
    order, and a run that was stopped goes on after the last part that was saved.
    """

    name: ClassVar[str]
    sample_noun: ClassVar[str]
    part_noun: ClassVar[str]
    primary: ClassVar[str]  # the metric that is plotted
    exponential: ClassVar[frozenset[str]] = frozenset()  # metrics that are exponentials of means
    takes_fresh: ClassVar[bool] = False

    @property
    @abstractmethod
    def num_samples(self) -> int:
        """Samples of this run."""

    @abstractmethod
    def num_parts(self, sample: int) -> int:
        """Return how many parts a sample has."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what the scores depend on, JSON-able; two runs of equal settings agree."""

    @abstractmethod
    def run(self, job: Job) -> None:
        """Do the parts of a job's sample that are not done yet, with `Job.add` after each."""
