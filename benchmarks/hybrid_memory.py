"""Measure the memory of hybrid streams: its bytes, and what it recalls beyond the window.

Run: `python -m benchmarks.hybrid_memory --json benchmarks/results/hybrid-memory.json`

Two parts. Bytes: tiny random models of hybrid families are fed, and then the clock is set forward
to 1,000,000 tokens; the bytes of the stream and of the process are compared. Recall: a tiny hybrid
model and one of attention only learn to recall a digit after a mark. Then both stream, and the
digit is asked for at growing distances, inside the window and beyond it.
"""

from __future__ import annotations

import resource
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from benchmarks.progress import shown
from streamingllm import Stream, StreamConfig
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.family_passes import tokens
from tests.reference.hybrids import hybrid_model

FAMILIES = ("lfm2", "qwen3_5_text", "falcon_h1", "kimi_linear")
END = 1_000_000
WINDOW = StreamConfig(num_sink_tokens=4, window_size=252, chunk_size=256)

NUM_DIGITS, MARK, QUESTION, VOCABULARY = 10, 10, 11, 32
RECALL = StreamConfig(num_sink_tokens=2, window_size=30, max_rewind_tokens=0)
DISTANCES = (4, 8, 16, 24, 28, 40, 64, 96, 128, 192, 256, 512, 1024)
TRAINED_LENGTH, NUM_QUESTIONS = 64, 8
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": False,
}
_DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}


def bytes_of(name: str, num_fed: int) -> dict[str, Any]:
    """Return the bytes of a family's stream at its beginning and at `END` tokens."""
    stream = Stream(hybrid_model(name, torch.float32), WINDOW)
    stream.feed(tokens(WINDOW.cache_size), logits="none")
    samples = {}
    for part in (0, *[num_fed // 4] * 4):
        for first in range(0, part, 4096):
            stream.feed(tokens(min(4096, part - first), seed=first), logits="none")
        samples[stream.num_seen_tokens] = _now(stream)
    stream.skip_to(END - num_fed // 4)
    stream.feed(tokens(num_fed // 4, seed=1), logits="none")
    samples[stream.num_seen_tokens] = _now(stream)
    states = stream._strategy.cache_for("states").states
    assert states is not None
    return {"samples": samples, "states": states.nbytes, "checkpoints": states.rewind_nbytes}


def _now(stream: Stream) -> dict[str, int]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"nbytes": stream.nbytes, "rewind_nbytes": stream.rewind_nbytes, "process_peak": peak}


def make_model(is_hybrid: bool) -> PreTrainedModel:
    """Return an untrained model of both kinds of layers, or of attention only."""
    fields = _SIZES | (_DELTA if is_hybrid else {})
    config = AutoConfig.for_model("qwen3_5_text" if is_hybrid else "qwen3", **fields)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("dt_bias"):  # states that forget slowly, as papers begin
                parameter.data.uniform_(-7.0, -2.0)
            elif name.endswith("A_log"):
                parameter.data.zero_()
    return model


def texts(
    num_texts: int, length: int, distances: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return texts that hide a digit, where they ask for it, and the digit.

    Args:
        num_texts: how many.
        length: tokens of each.
        distances: from the digit to the question that ends a text, int64, [num_texts]; None for
            `NUM_QUESTIONS` questions anywhere after a digit near the beginning.
        generator: source of randomness.

    Returns:
        ids [num_texts, length], columns of questions [num_texts, questions], digits [num_texts].
    """

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    ids = draw(0, VOCABULARY - 2, num_texts, length)
    ids += 2 * (ids >= MARK).long()  # digits are noise too; the two marks are not
    digits, rows = draw(0, NUM_DIGITS, num_texts), torch.arange(num_texts)
    if distances is None:
        at = draw(2, length // 3, num_texts)
        spread = torch.rand(num_texts, NUM_QUESTIONS, generator=generator)
        questions = at[:, None] + 1 + (spread * (length - at[:, None] - 1)).long()
    else:
        questions, at = torch.full((num_texts, 1), length - 1), length - 1 - distances
    ids[rows[:, None], questions] = QUESTION
    ids[rows, at - 1], ids[rows, at] = MARK, digits
    return ids, questions, digits


def train(model: PreTrainedModel, num_steps: int, window: int | None, name: str) -> list[float]:
    """Teach a model to answer questions; return the share of right answers, ten times.

    Args:
        model: of `make_model`.
        num_steps: steps of 32 texts each.
        window: tokens that attention sees in training; None for all.
        name: of the progress bar.
    """
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=num_steps)
    mask, shares, right = _banded(window), [], 0.0
    model.train()
    for step in shown(range(num_steps), name):
        ids, questions, digits = texts(32, TRAINED_LENGTH, None, generator)
        logits = model(ids, attention_mask=mask, use_cache=False).logits
        rows = torch.arange(len(ids))[:, None]
        answers = logits[rows, questions].flatten(0, 1)
        target = digits.repeat_interleave(NUM_QUESTIONS)
        loss = F.cross_entropy(answers, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        right = 0.9 * right + 0.1 * float((answers.argmax(-1) == target).float().mean())
        if (step + 1) % max(1, num_steps // 10) == 0:
            shares.append(round(right, 3))
    model.eval()
    return shares


def _banded(window: int | None) -> Tensor | None:
    if window is None:
        return None
    query, key = torch.arange(TRAINED_LENGTH)[:, None], torch.arange(TRAINED_LENGTH)
    seen = (key <= query) & (key > query - window)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return mask[None, None]


def recall(model: PreTrainedModel, distance: int, num_texts: int) -> float:
    """Return the share of right answers of streams that ask at a distance."""
    generator = torch.Generator().manual_seed(distance)
    ids, _, digits = texts(num_texts, distance + 40, torch.full((num_texts,), distance), generator)
    logits = Stream(model, RECALL).feed(ids, logits="last")
    return float((logits[:, :NUM_DIGITS].argmax(-1) == digits).float().mean())


def main(
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
    num_fed: Annotated[int, typer.Option(help="Tokens fed to each random model.")] = 16_000,
    num_steps: Annotated[int, typer.Option(help="Training steps of each tiny model.")] = 200,
    num_texts: Annotated[int, typer.Option(help="Texts for each distance.")] = 200,
) -> None:
    """Measure bytes and recall; example: python -m benchmarks.hybrid_memory --json out.json."""
    sizes = {name: bytes_of(name, num_fed) for name in shown(FAMILIES, "bytes")}
    results: dict[str, Any] = {}
    for name, is_hybrid, window in (
        ("attention, trained on whole texts", False, None),
        ("hybrid, trained on whole texts", True, None),
        ("hybrid, trained in a window of 8", True, 8),
    ):
        model = make_model(is_hybrid)
        shares = train(model, num_steps, window, name)
        results[name] = {
            "parameters": model.num_parameters(),
            "right_in_training": shares,
            "right_by_distance": {d: recall(model, d, num_texts) for d in DISTANCES},
        }
    write_json(json, {"bytes": sizes, "recall": results, **run_record(seed=0)})


if __name__ == "__main__":
    typer.run(main)
