"""Does it help to normalise the sinks' logits? Forms and controls on perplexity.

Run: `python -m benchmarks.sink_logits TEXT TEXT --calibration TEXT --json sink-logits.json`

A form is calibrated on one text, whole in the cache, and measured on the others: loss per token
past the first eviction, the same tokens for each, paired by segments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.progress import shown
from benchmarks.sink_logit_forms import Calibration, Calibrator, Form, Plain, attending
from streamingllm import LanguageModel, Stream, StreamConfig
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.bootstrap import Sums, estimate, paired_difference, sums_of
from streamingllm.evaluation.perplexity import PerplexityRun
from streamingllm.evaluation.texts import open_documents, read_tokens
from streamingllm.models import DEFAULT_MODEL, load_model

NUM_SINKS, WINDOW_SIZE = 4, 252
CALIBRATION_TOKENS, SKIPPED_TOKENS = 2048, 1024
QUERIES = 64  # plain attention takes so many at once
SEGMENT = 128
SEED = 0


def calibrate(lm: LanguageModel, ids: torch.Tensor) -> Calibration:
    """Return what sinks, window and the tokens between weigh where all are in the cache."""
    calibrator = Calibrator(
        lm.model.config.num_hidden_layers, NUM_SINKS, WINDOW_SIZE, SKIPPED_TOKENS
    )
    config = StreamConfig(NUM_SINKS, CALIBRATION_TOKENS, chunk_size=QUERIES, max_rewind_tokens=0)
    stream = Stream(lm.model, config)
    with attending(calibrator):
        stream.feed(ids[:CALIBRATION_TOKENS], logits="none")
    return calibrator.result()


def forms_of(found: Calibration) -> dict[str, Form]:
    """Return the forms to try, and the controls."""
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(found.missing.numel(), generator=generator)
    shuffled = found.missing.flatten()[order].view_as(found.missing)
    uniform = torch.full_like(found.missing, float(found.missing.mean()))
    return {
        "none": Form(),
        "mass matching": Form(bias=-found.missing),
        "half of it": Form(bias=-found.missing / 2),
        "cap": Form(most=found.sink_logit),
        "evicted mass as a key": Form(evicted=found.evicted),
        "control: uniform": Form(bias=-uniform),
        "control: shuffled heads": Form(bias=-shuffled),
        "control: sign flipped": Form(bias=found.missing),
        "control: uniform, sign flipped": Form(bias=uniform),
    }


def losses(lm: LanguageModel, ids: torch.Tensor, form: Form, window_size: int) -> Sums:
    """Return sum and count of the losses of each segment past the first eviction."""
    config = StreamConfig(NUM_SINKS, window_size, chunk_size=QUERIES, max_rewind_tokens=0)
    run = PerplexityRun(lm.model, ids, config)
    with attending(Plain(lm.model.config.num_hidden_layers, form)):
        while not run.is_done:
            run.step()
    nll = run.result().nll
    first = 2 * (NUM_SINKS + WINDOW_SIZE)  # from where on all queries have evicted tokens
    segments = np.split(nll[first:], range(SEGMENT, len(nll) - first, SEGMENT))
    return sums_of([(float(segment.sum()), len(segment)) for segment in segments])


def measure(lm: LanguageModel, texts: list[torch.Tensor], found: Calibration) -> dict[str, Any]:
    """Return perplexity under each form, and the paired difference from none."""
    runs = [(name, form, WINDOW_SIZE) for name, form in forms_of(found).items()]
    runs.append(("control: 4 more tokens", Form(), WINDOW_SIZE + 4))
    results: dict[str, Any] = {}
    base: Sums | None = None
    for name, form, window_size in shown(runs, "forms"):
        sums = np.concatenate([losses(lm, ids, form, window_size) for ids in texts])
        base = sums if base is None else base
        difference = paired_difference(base, sums, seed=SEED)
        results[name] = {
            "perplexity": estimate(sums, seed=SEED, is_exponential=True).to_json(),
            "nats_above_none": difference.to_json(),
        }
    return results


def main(
    texts: Annotated[list[str], typer.Argument(help="UTF-8 files to measure on.")],
    calibration: Annotated[str, typer.Option(help="A UTF-8 file to calibrate on.")],
    model: Annotated[str, typer.Option(help="A catalog name, a folder or a .gguf file.")] = (
        DEFAULT_MODEL
    ),
    tokens: Annotated[int, typer.Option(help="Tokens of each text.")] = 6_000,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Measure and write the results."""
    lm = load_model(model, dtype="float32", device="cpu")
    found = calibrate(lm, read_tokens(lm, open_documents(calibration), CALIBRATION_TOKENS))
    ids = [read_tokens(lm, open_documents(text), tokens) for text in texts]
    results = {
        "model": model,
        "texts": [Path(text).name for text in texts],
        "calibration": Path(calibration).name,
        "tokens_per_text": tokens,
        "num_sink_tokens": NUM_SINKS,
        "window_size": WINDOW_SIZE,
        "mean_missing": float(found.missing.mean()),
        "forms": measure(lm, ids, found),
    }
    write_json(json, {**results, **run_record(SEED)})


if __name__ == "__main__":
    typer.run(main)
