"""Context of a reproduction: model, texts, sizes, and the folder of its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamingllm.errors import InputError
from streamingllm.evaluation.caches import parse_caches
from streamingllm.evaluation.evaluation import Evaluation, evaluate
from streamingllm.evaluation.records import Records
from streamingllm.evaluation.tasks.base import Job, Task
from streamingllm.evaluation.tasks.perplexity import PerplexityTask, TokenizedText

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel


@dataclass(frozen=True)
class Sizes:
    """Sizes of a reproduction.

    Args:
        cache_size: tokens of a cache where the paper takes 1,024.
        tokens: of each text, for perplexity.
        recompute_tokens: of the text, under re-computation.
        long_tokens: of the text of figure 5.
        cache_sizes: of table 6 and figure 10.
        queries: of a StreamEval record.
        records: of StreamEval.
        line_distances: of table 7.
        questions: of each ARC set.
        meetings: questions of QMSum, each about a meeting.
        decode_steps: timed for figure 10.
    """

    cache_size: int
    tokens: int
    recompute_tokens: int
    long_tokens: int
    cache_sizes: tuple[int, ...]
    queries: int
    records: int
    line_distances: tuple[int, ...]
    questions: int
    meetings: int
    decode_steps: int


QUICK = Sizes(
    cache_size=256,
    tokens=4096,
    recompute_tokens=128,
    long_tokens=16_384,
    cache_sizes=(128, 256, 512),
    queries=10,
    records=1,
    line_distances=(5, 10, 20),
    questions=20,
    meetings=3,
    decode_steps=10,
)
FULL = Sizes(
    cache_size=1024,
    tokens=65_536,
    recompute_tokens=2048,
    long_tokens=4_000_000,
    cache_sizes=(256, 512, 1024, 2048, 4096),
    queries=100,
    records=100,
    line_distances=(20, 40, 60, 80, 100, 150, 200, 400, 600, 800, 1000),
    questions=100_000,
    meetings=200,
    decode_steps=50,
)


class Context:
    """Measure for exhibits, with one model and one set of sizes.

    Args:
        lm: model and tokenizer.
        texts: read for perplexity; the first one is the long text.
        sizes: of everything.
        data: folder of data sets; None if there is none.
        folder: of records, so that a run goes on where it was stopped; None keeps nothing.
        fingerprint: what the records depend on in addition to each task.
        seed: of generated texts and of intervals.
        on_part: called after each part of an evaluation.
    """

    def __init__(
        self,
        lm: LanguageModel,
        texts: Sequence[TokenizedText],
        sizes: Sizes,
        *,
        data: Path | None = None,
        folder: Path | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        seed: int = 0,
        on_part: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.lm = lm
        self.texts = texts
        self.sizes = sizes
        self.seed = seed
        self._data = data
        self._folder = folder
        self._fingerprint = dict(fingerprint or {})
        self._on_part = on_part

    def evaluate(self, name: str, task: Task, caches: Sequence[str]) -> Evaluation:
        """Run a task under caches, leaving out what the folder holds already."""
        path = None if self._folder is None else self._folder / f"{name}.jsonl"
        settings = {"task": task.name, "task_settings": task.settings()}
        records = Records(path, {**self._fingerprint, **settings})
        choices = parse_caches(caches)
        return evaluate(task, self.lm, choices, records=records, on_part=self._on_part)

    def perplexity(self, name: str, tokens: int, caches: Sequence[str]) -> Evaluation:
        """Measure perplexity of the beginning of each text; every cache reads the same."""
        texts = [TokenizedText(text.name, text.ids[:tokens]) for text in self.texts]
        return self.evaluate(name, PerplexityTask(texts, self.segment_tokens(tokens)), caches)

    def segment_tokens(self, tokens: int) -> int:
        """Return the tokens of a segment: at least sixteen segments of a text."""
        return max(32, min(4096, tokens // 16))

    def data_file(self, name: str) -> Path:
        """Return a file of the data folder.

        Raises:
            InputError: there is none.
        """
        if self._data is None or not (self._data / name).is_file():
            raise InputError(f"data has no {name}; give --data a folder that holds it")
        return self._data / name

    def has_data(self, names: Sequence[str]) -> bool:
        """Tell whether the data folder holds all of these files."""
        return all(self._data is not None and (self._data / name).is_file() for name in names)
