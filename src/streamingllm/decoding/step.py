"""Decode one token of one or many streams, on the compiled path as soon as there is one."""

from __future__ import annotations

import atexit
import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.attention.attach import Attachment
from streamingllm.attention.step_plan import RingBuffers
from streamingllm.decoding.artifact import (
    Compilation,
    fingerprint,
    load_package,
    package_path,
)
from streamingllm.decoding.linears import join_siblings
from streamingllm.decoding.module import StepModule
from streamingllm.kernels import native
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.rope import RopeEncoding

MAX_BATCH = 64
_EXAMPLE_STREAMS, _EXAMPLE_ENTRIES = 7, 11  # any others do as well
_log = logging.getLogger("streamingllm")

Geometry = tuple[tuple[int, ...], int]  # sink positions, window size


class DecodeStep:
    """Feed one token to each of several streams and return their next logits.

    Args:
        model: its linear layers that read the same activations are moved side by side in memory.
        attachment: has been acquired for as long as the step is used.
        encodings: of each layer.
        geometries: sink positions and window size of each layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        attachment: Attachment,
        encodings: Sequence[PositionEncoding],
        geometries: Sequence[Geometry],
    ) -> None:
        native.load()
        join_siblings(model)
        self._geometries = list(dict.fromkeys(geometries))
        self._sinks = [torch.tensor(sinks, dtype=torch.int64) for sinks, _ in self._geometries]
        geometry_of = tuple(self._geometries.index(g) for g in geometries)
        self._module = StepModule(model, attachment, tuple(encodings), geometry_of)
        self._config = model.config.to_diff_dict()
        self._compiled: dict[bool, Callable[[list[Tensor]], list[Tensor]]] = {}
        self._compilations: dict[bool, Compilation] = {}

    def run(
        self,
        ids: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        buffers: Sequence[RingBuffers],
    ) -> Tensor:
        """Write one token to each stream and return logits [batch, vocab].

        Args:
            ids: the tokens.
            rows: which stream of `buffers` each is for.
            positions: stream position of each token; past the last sink.
            buffers: of each layer, written in place.
        """
        shifts = [[_sink_shift(t, sinks, m) for t in positions] for sinks, m in self._geometries]
        numbers = torch.tensor([ids, rows, positions, *shifts])
        compiled = self._compiled.get(len(positions) > 1)
        if compiled is not None:
            rings = [x for layer in buffers for x in layer if x is not None]
            return compiled([numbers, *rings, *self._sinks])[0]
        with torch.inference_mode():
            logits: Tensor = self._module(numbers, buffers, self._sinks)
        return logits

    def is_compiled(self, batch_size: int) -> bool:
        """Whether steps of that many streams run compiled."""
        return (batch_size > 1) in self._compiled

    def compile(
        self, batch_size: int, buffers: Sequence[RingBuffers], *, kept_only: bool = False
    ) -> None:
        """Begin to compile for one stream, or for any number above one, unless that is done.

        A step that was compiled before is loaded at once; else `poll` or `wait` says when it is.
        With `kept_only` nothing is compiled.
        """
        many = batch_size > 1
        if many in self._compiled or many in self._compilations:
            return
        inputs = self._example(many, buffers)
        path = package_path(fingerprint(self._module, inputs, self._config))
        if path.is_file() and self._load(many, path):
            return
        if kept_only:
            return
        dynamic = _dynamic_dimensions(many, inputs)
        with torch.no_grad():
            program = torch.export.export(
                self._module, inputs, dynamic_shapes=dynamic, strict=False
            )
        self._compilations[many] = Compilation(program, path)
        atexit.register(self._compilations[many].stop)

    def _load(self, many: bool, path: Path) -> bool:
        """Take over a kept step; tell whether that could be done. A damaged one is removed."""
        try:
            self._compiled[many] = load_package(path, self._tensors())
        except RuntimeError as error:
            _log.warning("a kept step cannot be read: %s", str(error).partition("\n")[0])
            path.unlink(missing_ok=True)
        return many in self._compiled

    def poll(self) -> bool:
        """Take over what has been compiled; tell whether something still is."""
        for many, compilation in list(self._compilations.items()):
            if not compilation.running:
                self._take_over(many, compilation)
        return bool(self._compilations)

    def wait(self) -> None:
        """Wait until all that was begun is compiled."""
        for many, compilation in list(self._compilations.items()):
            self._take_over(many, compilation)

    def _take_over(self, many: bool, compilation: Compilation) -> None:
        error = compilation.finish()
        atexit.unregister(compilation.stop)
        del self._compilations[many]
        if error is not None:
            _log.warning("the decode step stays uncompiled: %s", error)
            return
        self._load(many, compilation.target)

    def _tensors(self) -> dict[str, Tensor]:
        named = [
            *self._module.named_parameters(remove_duplicate=False),
            *self._module.named_buffers(remove_duplicate=False),
        ]
        return dict(named)

    def _example(self, many: bool, buffers: Sequence[RingBuffers]) -> tuple[Any, ...]:
        batch = 2 if many else 1

        def like(x: Tensor | None) -> Tensor | None:
            if x is None:
                return None
            return x.new_zeros((_EXAMPLE_STREAMS, x.shape[1], _EXAMPLE_ENTRIES, x.shape[3]))

        numbers = torch.ones(3 + len(self._geometries), batch, dtype=torch.int64)
        rings = [tuple(like(x) for x in layer) for layer in buffers]
        return numbers, rings, [torch.arange(5) for _ in self._geometries]


def _dynamic_dimensions(many: bool, inputs: tuple[Any, ...]) -> Any:
    """Say which sizes may change from call to call: a batch above 1.

    So may those of rings and sinks, but no compiler needs to know: operators get them as they are.
    """
    numbers = {1: torch.export.Dim("batch", min=2, max=MAX_BATCH)} if many else None
    rings = [tuple(None for _ in layer) for layer in inputs[1]]
    return numbers, rings, [None for _ in inputs[2]]


def _sink_shift(position: int, sinks: tuple[int, ...], window_size: int) -> int:
    """Return how far the query at `position` moves to where the sinks see it."""
    outside = bisect_right(sinks, position - window_size)
    return outside + window_size - 1 - position if outside else 0


def why_not(
    model: PreTrainedModel, attachment: Attachment, encodings: Sequence[PositionEncoding]
) -> str | None:
    """Return why a model's single tokens go through an ordinary pass; None if they need not."""
    if attachment.adapter is not None:
        return f"{model.config.model_type} bypasses transformers' attention interface"
    if model.device.type != "cpu":
        return f"steps are compiled for the CPU, the model is on {model.device}"
    if model.dtype not in (torch.float32, torch.bfloat16):
        return f"dtype is {model.dtype}, kernels take float32 and bfloat16"
    for encoding in encodings:
        if encoding.has_bias:
            return f"{encoding.name} adds a bias to scores"
        if isinstance(encoding, RopeEncoding) and encoding.in_values:
            return "its cache holds latent keys"
    with suppress(AttributeError):
        if model.config.get_text_config().head_dim % 16:
            return "head_dim is not a multiple of 16"
    return None if native.load() else "there are no native kernels here"
