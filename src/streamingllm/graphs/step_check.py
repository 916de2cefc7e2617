"""Check the decode step of a model against ordinary passes before it is trusted with a stream.

The self-check of a model covers its ordinary passes. A step reads weights, rings and positions in a
way of its own, so it is run on a few tokens as well. Two streams at different positions step
together, one of them past its first eviction. Then one of them steps alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.errors import StreamingLLMError, first_line
from streamingllm.graphs.step_linears import join_siblings
from streamingllm.graphs.step_module import StepModule, StepToken, numbers_of
from streamingllm.integration.attach import Attachment, evaluating
from streamingllm.integration.sink_cache import SinkCache

NUM_SINK_TOKENS, WINDOW_SIZE, MAX_REWIND_TOKENS = 2, 3, 2
PREFILL_TOKENS, NUM_PADDING = 7, 3
# Greatest relative difference of a row of logits. Kernels and passes round differently; a wrong
# position or a wrong entry of a ring shows in the first digits of float32.
TOLERANCE_FULL, TOLERANCE_HALF = 1e-3, 0.2
# A mixture of experts may send a token elsewhere because of rounding, other tokens then agree.
ATTEMPTS = 3
_log = logging.getLogger("streamingllm")
# Not the attachment's lock: making a cache takes the lock under which models are attached first.
_checking = threading.RLock()
_Kind = tuple[torch.dtype, torch.device]
_reasons: WeakKeyDictionary[Attachment, dict[_Kind, str | None]] = WeakKeyDictionary()


def check_step(model: PreTrainedModel, attachment: Attachment) -> str | None:
    """Return why a model's decode step cannot be trusted; None if it agrees with ordinary passes.

    The check runs once for each model, data type and device. A refusal is logged.

    Args:
        model: one whose step has kernels. Its sibling layers are moved side by side in memory.
        attachment: has been acquired.
    """
    kind = (model.dtype, model.device)
    with _checking:
        known = _reasons.setdefault(attachment, {})
        if kind not in known:
            known[kind] = _find_reason(model, attachment)
            if known[kind] is not None:
                family = model.config.model_type
                _log.warning("%s decodes by ordinary passes: %s", family, known[kind])
        return known[kind]


def _find_reason(model: PreTrainedModel, attachment: Attachment) -> str | None:
    worst: list[tuple[str, float]] = []
    try:
        for attempt in range(ATTEMPTS):
            worst = list(_differences(model, attachment, first_id=attempt * PREFILL_TOKENS))
            if not (worst := [found for found in worst if found[1] > _tolerance(model)]):
                return None
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, TypeError, RuntimeError, StreamingLLMError) as error:
        return f"its decode step fails on a few tokens ({first_line(error)})"
    where, difference = worst[0]
    return (
        f"its decode step differs from a pass by {difference:.2g} of the logits {where}, "
        f"more than {_tolerance(model)}"
    )


def _tolerance(model: PreTrainedModel) -> float:
    half = model.dtype.itemsize < torch.float32.itemsize
    return TOLERANCE_HALF if half else TOLERANCE_FULL


def _differences(
    model: PreTrainedModel, attachment: Attachment, first_id: int
) -> Iterator[tuple[str, float]]:
    """Yield by how much each row of a step's logits differs from those of a pass, and in what."""
    window = min(WINDOW_SIZE, *(w for w in attachment.windows if w), WINDOW_SIZE)
    config = StreamConfig(NUM_SINK_TOKENS, window, max_rewind_tokens=MAX_REWIND_TOKENS)
    prompt, together, alone = _ids(model, first_id).split([PREFILL_TOKENS, 1, 1], dim=1)
    mask = torch.ones_like(prompt)
    mask[0, :NUM_PADDING] = 0
    with (
        SinkCache.of(model, config) as passing,
        SinkCache.of(model, config) as stepping,
        attachment.exclusive(),
        evaluating(attachment.decoder),
        torch.no_grad(),
    ):
        join_siblings(model)
        module = StepModule(model, attachment, stepping.encodings, stepping.geometry_of)
        attachment.decoder(prompt, attention_mask=mask, past_key_values=passing, use_cache=True)
        stepping.import_state(passing.export_state())
        step = _step(module, together[:, 0].tolist(), (0, 1), stepping)
        for row, expected in enumerate(_pass(model, together, passing)):
            yield f"for stream {row} of two", _relative(step[row], expected)
        stepping.count_step()
        step = _step(module, alone[1].tolist(), (1,), stepping)
        yield "for a stream alone", _relative(step[0], _pass(model, alone, passing)[1])


def _ids(model: PreTrainedModel, first_id: int) -> Tensor:
    """Return token ids of two streams, int64, [2, PREFILL_TOKENS + 2]."""
    num_ids = int(model.config.get_text_config().vocab_size)
    length = PREFILL_TOKENS + 2
    ids = torch.arange(first_id, first_id + 2 * length, device=model.device)
    return ids.view(2, length) % num_ids


def _step(module: StepModule, ids: Sequence[int], slots: Sequence[int], cache: SinkCache) -> Tensor:
    positions = cache.positions.per_stream(2)
    numbers = numbers_of(
        [
            StepToken(token_id, slot, positions[slot], cache.step_layouts(slot, positions[slot]))
            for token_id, slot in zip(ids, slots, strict=True)
        ]
    ).to(module.model.device)
    with torch.inference_mode():
        logits: Tensor = module(numbers, cache.ring_buffers)
    return logits


def _pass(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> Tensor:
    output = model(input_ids=ids, past_key_values=cache, use_cache=True)
    logits: Tensor = output.logits[:, -1]
    return logits


def _relative(found: Tensor, expected: Tensor) -> float:
    """Return the relative difference of two rows of logits; infinite where one is not finite."""
    found, expected = found.double(), expected.double()
    apart = float((found - expected).norm() / expected.norm().clamp(min=1e-30))
    return apart if apart == apart else float("inf")
