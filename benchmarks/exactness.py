"""Hold the default model's stream against the paper's rule on a real text.

Run: `python -m benchmarks.exactness --text pydoc --json benchmarks/results/exactness.json`

Checks, in float32 unless said otherwise: logits do not depend on how a text is split; a stream's
perplexity equals that of the token-by-token reference loop; the same tokens give the same logits at
stream position 0 and 4,000,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from benchmarks.progress import shown
from streamingllm import LanguageModel, Stream, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.perplexity import measure_perplexity
from streamingllm.evaluation.texts import open_documents, read_tokens
from tests.reference.layer_facts import LayerFacts
from tests.reference.oracles import logits_token_by_token

CHUNKS = (1, 7, 64, 255, 256, 257, 1000)
SPLIT_CONFIG = StreamConfig(
    num_sink_tokens=4, window_size=252, max_rewind_tokens=0, chunk_size=4096
)


def logits_in_blocks(stream: Stream, ids: Tensor, chunk: int, block: int = 512) -> Iterator[Tensor]:
    """Feed `ids` in chunks and yield their logits in blocks of `block` rows."""
    rows: list[Tensor] = []
    for part in ids.split(chunk):
        rows.append(stream.feed(part))
        held = torch.cat(rows)
        while len(held) >= block:
            yield held[:block]
            held = held[block:]
        rows = [held]
    if len(rows[0]):
        yield rows[0]


def largest_differences(model: Any, ids: Tensor, chunks: tuple[int, ...]) -> dict[int, float]:
    """Return, per chunk size, the largest logit difference from feeding everything at once."""
    whole = Stream(model, SPLIT_CONFIG).feed(ids)
    worst = {}
    for chunk in shown(chunks, "chunk sizes"):
        stream, first, worst[chunk] = Stream(model, SPLIT_CONFIG), 0, 0.0
        for block in logits_in_blocks(stream, ids, chunk):
            difference = (block - whole[first : first + len(block)]).abs().max()
            worst[chunk] = max(worst[chunk], float(difference))
            first += len(block)
    return worst


def mean_nll(model: Any, ids: Tensor, chunk_size: int) -> float:
    """Return the mean negative log-likelihood of `ids` with SPLIT_CONFIG's window."""
    config = StreamConfig(4, 252, max_rewind_tokens=0, chunk_size=chunk_size)
    return float(measure_perplexity(model, ids, config).nll.mean())


def against_reference(model: Any, ids: Tensor) -> dict[str, float]:
    """Compare perplexity with the token-by-token oracle's, 4 sinks and 1,020 recent tokens."""
    ours = measure_perplexity(model, ids, StreamConfig(4, 1020))
    layer = LayerFacts(inv_freq=model.get_decoder().rotary_emb.inv_freq.double())
    facts = (layer,) * model.config.num_hidden_layers
    rows = shown(
        logits_token_by_token(model, facts, ids[None], 4, 1020), "reference loop", len(ids)
    )
    nll = [
        F.cross_entropy(row.float(), target[None])
        for row, target in zip(rows, ids[1:], strict=False)
    ]
    reference = float(torch.stack(nll).mean().exp())
    return {
        "tokens": len(ids),
        "perplexity": ours.perplexity,
        "reference_perplexity": reference,
        "relative_difference": abs(ours.perplexity / reference - 1),
        "largest_nll_difference": float((torch.tensor(ours.nll) - torch.stack(nll)).abs().max()),
    }


def far_along(model: Any, ids: Tensor, position: int) -> float:
    """Return the largest logit difference between position 0 and `position`.

    Both streams have the same 4 sinks; the second one's clock then jumps, over a ring whose
    contents it can no longer see once the model's traces of them have died out.
    """
    config = StreamConfig(4, 60, max_rewind_tokens=0)
    near, far = Stream(model, config), Stream(model, config)
    warm_up = 60 * (model.config.num_hidden_layers + 1)
    for stream, jump in ((near, 0), (far, position)):
        stream.feed(ids[:64], logits="none")
        clock = stream._strategy.cache_for("jump").positions
        clock.seen = [t + jump for t in clock.seen]
        stream.feed(ids[64:].repeat(1 + warm_up // len(ids))[:warm_up], logits="none")
    return float((near.feed(ids) - far.feed(ids)).abs().max())


def main(
    text: Annotated[str, typer.Option(help="A file or `pydoc`.")] = "pydoc",
    tokens: Annotated[int, typer.Option(help="Tokens for the reference loop.")] = 8192,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Run all checks and write their figures as JSON."""
    exact: LanguageModel = load_model(dtype="float32")
    coarse: LanguageModel = load_model(dtype="bfloat16")
    ids = read_tokens(exact, open_documents(text), max(tokens, 4096))
    sample = ids[:4096]
    reference_nll = mean_nll(exact.model, sample, 256)
    results = {
        "chunk_differences": largest_differences(exact.model, sample, CHUNKS),
        "bfloat16_nll_relative_difference": {
            chunk: abs(mean_nll(coarse.model, sample, chunk) / reference_nll - 1)
            for chunk in (64, 256, 1000)
        },
        "position_0_against_4_000_000": far_along(exact.model, ids[:2048], 4_000_000),
        "against_reference_loop": against_reference(exact.model, ids[:tokens]),
    }
    write_json(json, {"text": text, **results, **run_record()})


if __name__ == "__main__":
    typer.run(main)
