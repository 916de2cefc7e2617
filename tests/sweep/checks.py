"""Oracles that need nothing but a model's class: its own passes over all tokens.

- dense: nothing is evicted, so a stream is the model's own pass
- banded: without sinks, the model's own attention under an explicit mask of the window
- one layer: with sinks, one layer reads the same from a stream as from the cached tokens alone;
  not of hybrids, whose states remember all tokens
- splits: the same stream in one pass, in chunks and token by token, in both precisions
- far: the same tokens after four million others
- generate: tokens that transformers' own loop generates, how many of them differ
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.errors import UnsupportedModelError
from streamingllm.integration.attach import attachment_of
from tests.sweep.fields import MANY_PASSES, NO_CUSTOM_MASK, NO_GENERATE
from tests.sweep.small_models import OWN_WINDOW, layer_kinds, small_model

NUM_SINKS, WINDOW = 3, 6
NUM_TOKENS, FIRST_ID = 40, 3
FAR = 4_000_000
LIMITS = {
    "dense": 1e-4,
    "banded": 1e-4,
    "one layer": 1e-4,
    "splits": 1e-4,
    "steps": 1e-3,
    "far": 1e-3,
    "generate": 0.0,
}
IDS = torch.arange(FIRST_ID, FIRST_ID + NUM_TOKENS)


def refusal(model: PreTrainedModel) -> str | None:
    """Return why a model is refused; None if it streams."""
    try:
        SinkCache(model, NUM_SINKS, WINDOW).disable()
    except UnsupportedModelError as error:
        return str(error)
    return None


def differences(model_type: str, model: PreTrainedModel) -> dict[str, float]:
    """Return the largest difference of any logit of a model in float64 from each oracle."""
    whole = _stream(model, NUM_SINKS, WINDOW, [NUM_TOKENS])
    found = {
        "dense": _from_dense(model),
        "splits": max(
            _apart(whole, _stream(model, NUM_SINKS, WINDOW, sizes))
            for sizes in ([1] * NUM_TOKENS, [7] * 5 + [5], [2, 30, 1, 1, 6])
        ),
        "far": _from_far(model),
    }
    if model_type not in NO_CUSTOM_MASK:
        found["banded"] = _from_banded(model)
    if model_type not in NO_GENERATE:
        found["generate"] = _from_generate(model)
    if model_type not in MANY_PASSES and attachment_of(model).hybrid is None:
        kinds = layer_kinds(model_type)
        found["one layer"] = max(_from_cached_tokens(model_type, kind) for kind in kinds)
    steps = _stream(model.float(), NUM_SINKS, WINDOW, [1] * NUM_TOKENS)
    return found | {"steps": _apart(whole, steps)}


def _stream(model: PreTrainedModel, n: int, m: int, sizes: Sequence[int]) -> Tensor:
    stream = Stream(model, StreamConfig(num_sink_tokens=n, window_size=m))
    return torch.cat([stream.feed(ids) for ids in IDS[: sum(sizes)].split(list(sizes))])


def _dense(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids[None], use_cache=False, **kwargs).logits[0]
    return logits


def _from_dense(model: PreTrainedModel) -> float:
    """Compare a stream that evicts nothing."""
    with SinkCache(model, NUM_SINKS, WINDOW) as cache:
        every_layer_local = None not in cache.attachment.windows
    length = OWN_WINDOW if every_layer_local else NUM_TOKENS
    expected = _dense(model, IDS[:length])
    assert _apart(_stream(model, NUM_SINKS, WINDOW, [NUM_TOKENS])[:length], expected) > 0.01
    return max(
        _apart(_stream(model, 4, length - 4, sizes), expected)
        for sizes in ([length], [length - 2, 1, 1])
    )


def _from_banded(model: PreTrainedModel) -> float:
    """Compare a stream without sinks."""
    query, key = torch.arange(NUM_TOKENS)[:, None], torch.arange(NUM_TOKENS)
    seen = (key <= query) & (key > query - WINDOW)
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, -1e9)[None, None]
    positions = torch.arange(NUM_TOKENS)[None]
    expected = _dense(model, IDS, attention_mask=mask, position_ids=positions)
    return _apart(_stream(model, 0, WINDOW, [NUM_TOKENS]), expected)


def _from_cached_tokens(model_type: str, kind: str | None) -> float:
    """Compare a model of one layer with its own pass over the sinks and the window of a token."""
    model = small_model(model_type, only=kind)
    logits = _stream(model, NUM_SINKS, WINDOW, [NUM_TOKENS])
    sinks, apart = IDS[:NUM_SINKS], 0.0
    for last in (NUM_SINKS + WINDOW - 1, 17, NUM_TOKENS - 1):
        cached = torch.cat((sinks, IDS[last + 1 - WINDOW : last + 1]))
        apart = max(apart, _apart(logits[last], _dense(model, cached)[-1]))
    return apart


def _from_generate(model: PreTrainedModel) -> float:
    """Count the tokens of transformers' loop that a stream would not generate."""
    prompt, num_new = IDS[: NUM_TOKENS // 2], 6
    with SinkCache(model, NUM_SINKS, WINDOW) as cache:
        generate: Any = model.generate
        ids = generate(
            prompt[None],
            past_key_values=cache,
            max_new_tokens=num_new,
            min_new_tokens=num_new,
            do_sample=False,
            use_cache=True,
            attention_mask=torch.ones_like(prompt)[None],
        )
    stream = Stream(model, StreamConfig(num_sink_tokens=NUM_SINKS, window_size=WINDOW))
    expected = torch.cat((stream.feed(prompt)[-1:], stream.feed(ids[0, len(prompt) : -1])))
    if model.generation_config.eos_token_id is not None:
        expected[:, model.generation_config.eos_token_id] = -torch.inf
    return float((expected.argmax(-1) != ids[0, len(prompt) :]).sum())


def _from_far(model: PreTrainedModel) -> float:
    """Compare what follows the same tokens at the start of a stream and far from it.

    Keys of before the jump are at other distances. A layer is rid of them m tokens after the layer
    below is, so only what comes later is compared.
    """
    depth = model.config.get_text_config().num_hidden_layers
    forgotten = depth * OWN_WINDOW
    generator = torch.Generator().manual_seed(1)
    new = torch.randint(FIRST_ID, 90, (forgotten + 2 * WINDOW,), generator=generator)
    logits = []
    for jump in (0, FAR):
        stream = Stream(model, StreamConfig(num_sink_tokens=NUM_SINKS, window_size=WINDOW))
        stream.feed(IDS)
        stream.skip_to(NUM_TOKENS + jump // WINDOW * WINDOW)
        logits.append(stream.feed(new)[forgotten:])
    return _apart(*logits)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())
