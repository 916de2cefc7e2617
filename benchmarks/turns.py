"""Compare eviction by whole turns with eviction by token on real conversations.

Run: `python -m benchmarks.turns longmemeval-s.json --json benchmarks/results/turns.json`

The file is a list of LongMemEval histories, each with `haystack_sessions` of {role, content}
messages. Each history is laid out in the model's own chat marks and fed message by message under
both rules; a turn begins with every message of the user, or with every message. The answers'
tokens are scored, because they are what a chat has to predict. Both rules read the same tokens, so
differences are paired; the interval is a bootstrap over messages.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray

from benchmarks.progress import shown
from streamingllm import LanguageModel, Stream, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record

_RULES = {"token": "token", "turn of user and assistant": "turn", "turn of one message": "turn"}


@dataclass
class Reading:
    """Figures of one rule on one history.

    Args:
        sums: negative log-likelihood of each answer, in nats.
        counts: tokens of each answer.
        visible: tokens visible after each message.
        seconds: time spent in the model.
    """

    sums: list[float]
    counts: list[int]
    visible: list[int]
    seconds: float = 0.0


def messages_of(history: dict[str, Any]) -> list[dict[str, str]]:
    """Return the messages of all sessions, in order."""
    return [message for session in history["haystack_sessions"] for message in session]


def read(
    lm: LanguageModel, messages: list[dict[str, str]], rule: str, window_size: int, limit: int
) -> Reading:
    """Feed messages until `limit` tokens are seen, and score the answers."""
    stream = Stream(lm, StreamConfig(4, window_size, eviction=_RULES[rule]))
    found = Reading([], [], [])
    for message in messages:
        if stream.num_seen_tokens >= limit:
            break
        text = f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        ids = lm.encode(text, add_special_tokens=False)
        if message["role"] == "user" or rule == "turn of one message":
            stream.begin_turn()
        started = time.perf_counter()
        before = stream.next_logits[None] if stream.num_seen_tokens else None
        logits = stream.feed(ids)
        found.seconds += time.perf_counter() - started
        if message["role"] == "assistant" and before is not None:
            predicted = torch.cat((before, logits[:-1])).float()
            found.sums.append(float(F.cross_entropy(predicted, ids, reduction="sum")))
            found.counts.append(len(ids))
        found.visible.append(stream.num_cached_tokens)
    return found


def interval(
    ours: NDArray[np.float64], base: NDArray[np.float64], counts: NDArray[np.float64], seed: int
) -> tuple[float, float]:
    """Return the central 95 % of exp(mean difference) - 1 over resampled messages."""
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(2000):
        chosen = generator.integers(0, len(counts), len(counts))
        difference = (ours[chosen] - base[chosen]).sum() / counts[chosen].sum()
        ratios.append(math.exp(difference) - 1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def main(
    data: Path,
    json_file: Annotated[str, typer.Option("--json")] = "-",
    window_sizes: Annotated[list[int], typer.Option("--window-size")] = [508, 1020],  # noqa: B006
    tokens: int = 16_384,
    dtype: str = "bfloat16",
    seed: int = 0,
) -> None:
    """Read each history under every rule and compare."""
    lm = load_model("smollm2-135m-instruct", dtype=dtype)
    histories = [messages_of(history) for history in json.loads(data.read_text())]
    results = []
    for window_size in window_sizes:
        readings: dict[str, list[Reading]] = {rule: [] for rule in _RULES}
        for history in shown(histories, f"window {window_size}"):
            for rule, found in readings.items():
                found.append(read(lm, history, rule, window_size, tokens))
        results.append({"window_size": window_size, "rules": compare(readings, seed)})
    settings = {"data": data.name, "histories": len(histories), "tokens": tokens, "dtype": dtype}
    write_json(json_file, {"results": results, "config": settings, **run_record(seed)})


def compare(readings: dict[str, list[Reading]], seed: int) -> dict[str, Any]:
    """Return each rule's figures, compared with eviction by token."""
    sums = {rule: np.array([x for r in found for x in r.sums]) for rule, found in readings.items()}
    counts = np.array([float(n) for reading in readings["token"] for n in reading.counts])
    table: dict[str, Any] = {}
    for rule, found in readings.items():
        low, high = interval(sums[rule], sums["token"], counts, seed)
        table[rule] = {
            "perplexity_of_answers": math.exp(sums[rule].sum() / counts.sum()),
            "change": math.exp((sums[rule] - sums["token"]).sum() / counts.sum()) - 1,
            "change_interval_95": [low, high],
            "answer_tokens": int(counts.sum()),
            "mean_visible_tokens": float(np.mean([n for r in found for n in r.visible])),
            "seconds": sum(r.seconds for r in found),
        }
    return table


if __name__ == "__main__":
    typer.run(main)
