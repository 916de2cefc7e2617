from __future__ import annotations

import math

import numpy as np
import pytest

from streamingllm.config import StreamConfig
from streamingllm.evaluation import measure_perplexity
from streamingllm.evaluation.caches import parse_caches
from streamingllm.evaluation.evaluation import evaluate
from streamingllm.evaluation.tasks.perplexity import PerplexityTask, TokenizedText
from tests.evaluation.tasks.evaluating import byte_lm

TEXTS = ["All work and no play. " * 9, "makes Jack a dull boy; " * 4]


@pytest.mark.parametrize("cache", ["4+20", "dense", "window:24", "recompute:24"])
def test_it_is_the_perplexity_of_each_text(cache: str) -> None:
    lm = byte_lm()
    ids = [lm.encode(text) for text in TEXTS]
    task = PerplexityTask([TokenizedText(str(i), each) for i, each in enumerate(ids)], 32)
    (choice,) = parse_caches([cache])
    found = evaluate(task, lm, [choice])
    nll = [measure_perplexity(lm.model, each, choice.config).nll for each in ids]
    for number, sample in enumerate(found.samples[cache]):
        assert len(sample) == math.ceil(len(ids[number]) / 32)
        total = sum(part.totals["perplexity"][0] for part in sample)
        count = sum(part.totals["perplexity"][1] for part in sample)
        assert total == pytest.approx(nll[number].sum(), rel=1e-5)
        assert count == len(nll[number])
    value = found.estimate(cache, "perplexity").value
    assert value == pytest.approx(math.exp(np.concatenate(nll).mean(dtype=np.float64)), rel=1e-5)


def test_parts_are_segments() -> None:
    lm = byte_lm()
    ids = lm.encode(TEXTS[0])
    task = PerplexityTask([TokenizedText("a", ids)], 50)
    found = evaluate(task, lm, parse_caches(["4+20"]))
    expected = measure_perplexity(lm.model, ids, StreamConfig(4, 20), segment_size=50).segments
    (sample,) = found.samples["4+20"]
    got = [math.exp(a / b) for a, b in (part.totals["perplexity"] for part in sample)]
    assert got == pytest.approx(expected, rel=1e-5)
