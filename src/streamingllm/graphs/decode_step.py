"""Decode one token of one or many streams, on the compiled path as soon as there is one."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.attention.step_plan import RingBuffers, StepLayout
from streamingllm.errors import first_line
from streamingllm.graphs.aot_cache import (
    Compilation,
    fingerprint,
    load_package,
    package_path,
)
from streamingllm.graphs.cuda_graphs import CapturedSteps, CudaRecorder
from streamingllm.graphs.inductor import fuse
from streamingllm.graphs.rollback import take_back
from streamingllm.graphs.step_linears import join_siblings
from streamingllm.graphs.step_module import StepModule, nobody, numbers_of
from streamingllm.graphs.step_module import StepToken as StepToken
from streamingllm.integration.attach import Attachment
from streamingllm.positions.base import PositionEncoding

MAX_BATCH = 64
# Sizes of steps on a GPU. Each has a CUDA graph of its own, which takes a while to capture.
GPU_SIZES = (1, 2, 4, *range(8, 64, 8), *range(64, 257, 32))
_EXAMPLE_STREAMS, _EXAMPLE_ENTRIES = 7, 11  # any others do as well
_log = logging.getLogger("streamingllm")


class DecodeStep:
    """Feed one token to each of several streams and return their next logits.

    On a GPU steps are captured in CUDA graphs, compiled or not.

    Args:
        model: one without an `unsupported_reason`. Its linear layers that read the same
            activations are moved side by side in memory.
        attachment: has been acquired for as long as the step is used.
        encodings: of each layer.
        geometry_of: for each layer, the number of its geometry.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        attachment: Attachment,
        encodings: Sequence[PositionEncoding],
        geometry_of: tuple[int, ...],
    ) -> None:
        join_siblings(model)
        self._device = model.device
        self._sizes = GPU_SIZES if self._device.type == "cuda" else ()
        self._attachment = attachment
        self._num_geometries = max(geometry_of) + 1
        self._module = StepModule(model, attachment, tuple(encodings), geometry_of)
        self._config = model.config.to_diff_dict()
        self._compiled: dict[bool, Callable[[list[Tensor]], list[Tensor]]] = {}
        self._compilations: dict[bool, Compilation] = {}
        self._cannot: set[bool] = set()
        self._captured = _capturing(self._device)

    @property
    def max_batch(self) -> int:
        """Tokens that an engine feeds in one step."""
        return max(self._sizes, default=MAX_BATCH)

    @property
    def max_tokens_per_slot(self) -> int:
        """Tokens of one slot that one step can take.

        The operator of GPUs takes all at once. A layer that reads another's ring finds all tokens
        of the step in it, also those that come after the one that attends.
        """
        in_turn = self._captured is None and not self._attachment.readers
        return self.max_batch if in_turn else 1

    @property
    def num_graphs(self) -> int:
        """CUDA graphs that steps are replayed from."""
        return 0 if self._captured is None else self._captured.num_graphs

    @property
    def num_first_steps(self) -> int:
        """Steps so far that took longer than others, because they were captured in them."""
        return 0 if self._captured is None else self._captured.num_first_steps

    def run(self, tokens: Sequence[StepToken], buffers: Sequence[RingBuffers]) -> Tensor:
        """Write one token to each slot and return logits [batch, vocab].

        Args:
            tokens: none of a slot more often than `max_tokens_per_slot`; past the last sink.
            buffers: of each layer, written in place.
        """
        missing = self._size(len(tokens)) - len(tokens)
        numbers = numbers_of([*tokens, *[nobody(self._num_geometries)] * missing])
        if self._captured is None:
            return self._step(numbers.to(self._device), buffers)[: len(tokens)]
        assert len({token.slot for token in tokens}) == len(tokens), "a GPU's step takes one token"
        rings = [x for layer in buffers for x in layer if x is not None]
        logits = self._captured.run(numbers, rings, lambda there: self._step(there, buffers))
        return logits[: len(tokens)]

    def capture(self, most: int, buffers: Sequence[RingBuffers]) -> None:
        """Capture the steps of all sizes up to `most` tokens ahead, which write nothing.

        Elsewhere than on a GPU nothing happens.
        """
        rings = [x for layer in buffers for x in layer if x is not None]
        if self._captured is None:
            return
        for size in self._sizes:
            if size > self._size(most):
                break
            numbers = numbers_of([nobody(self._num_geometries)] * size)
            for _ in range(2):  # the first of a kind runs as it is
                self._captured.run(numbers, rings, lambda there: self._step(there, buffers))

    def _size(self, number: int) -> int:
        """Return the tokens of a step that takes `number`, with those that stand in for none."""
        return next((size for size in self._sizes if size >= number), number)

    def _step(self, numbers: Tensor, buffers: Sequence[RingBuffers]) -> Tensor:
        compiled = self._compiled.get(numbers.shape[1] > 1)
        if compiled is not None:
            rings = [x for layer in buffers for x in layer if x is not None]
            return compiled([numbers, *rings])[0]
        with self._attachment.exclusive(), torch.inference_mode():
            try:
                logits: Tensor = self._module(numbers, buffers)
            except BaseException:
                take_back(self._module, numbers, buffers)
                raise
        return logits

    def is_compiled(self, batch_size: int) -> bool:
        """Return whether steps of that many streams run compiled."""
        return (batch_size > 1) in self._compiled

    def compile(
        self, batch_size: int, buffers: Sequence[RingBuffers], *, cached_only: bool = False
    ) -> None:
        """Begin to compile for one stream, or for any number above one, unless that is done.

        A step that was compiled before is loaded at once; else `poll` or `wait` says when it is.
        With `cached_only` nothing is compiled. For a GPU none is kept: it is compiled here and now.
        """
        many = batch_size > 1
        if many in self._cannot or many in self._compiled or many in self._compilations:
            return
        inputs = self._example(many, buffers)
        if self._captured is not None:
            if not cached_only:
                self._fuse(many, inputs, self._captured)
            return
        path = package_path(fingerprint(self._module, inputs, self._config))
        if path.is_file() and self._load(many, path):
            return
        if cached_only:
            return
        try:
            program = self._export(many, inputs)
        except Exception as error:  # what a family does may be beyond the exporter
            _stays_uncompiled(str(error))
            self._cannot.add(many)
            return
        self._compilations[many] = Compilation(program, path)
        atexit.register(self._compilations[many].stop)

    def _export(self, many: bool, inputs: tuple[Any, ...]) -> torch.export.ExportedProgram:
        dynamic = _dynamic_dimensions(self.max_batch if many else 1, inputs)
        # An exporter puts weights without values into the model, which no other thread may see.
        with self._attachment.exclusive(), torch.no_grad():
            return torch.export.export(self._module, inputs, dynamic_shapes=dynamic, strict=False)

    def _fuse(self, many: bool, inputs: tuple[Any, ...], captured: CapturedSteps) -> None:
        try:
            self._compiled[many] = fuse(self._export(many, inputs))
        except Exception as error:  # compilers fail in ways of their own
            _stays_uncompiled(str(error))
            self._cannot.add(many)
            return
        captured.begin_anew()

    def _load(self, many: bool, path: Path) -> bool:
        """Take over a kept step; tell whether that could be done. A damaged one is removed."""
        try:
            self._compiled[many] = load_package(path, self._tensors())
        except RuntimeError as error:
            _log.warning("a kept step cannot be read: %s", first_line(error))
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
            _stays_uncompiled(error)
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

        device = buffers[0].k_cache.device
        rows = 3 + len(StepLayout._fields) * self._num_geometries
        numbers = torch.ones(rows, batch, dtype=torch.int64, device=device)
        return numbers, [tuple(like(x) for x in layer) for layer in buffers]


def _stays_uncompiled(reason: str) -> None:
    _log.warning("the decode step stays uncompiled: %s", reason.partition("\n")[0])


def _capturing(device: torch.device) -> CapturedSteps | None:
    """Return what captures steps on a GPU; None elsewhere."""
    return CapturedSteps(CudaRecorder(device), device) if device.type == "cuda" else None


def _dynamic_dimensions(max_batch: int, inputs: tuple[Any, ...]) -> Any:
    """Say which sizes may change from call to call: a batch above 1.

    So may those of rings and sinks, but no compiler needs to know: operators get them as they are.
    """
    numbers = {1: torch.export.Dim("batch", min=2, max=max_batch)} if max_batch > 1 else None
    rings = [tuple(None for _ in layer) for layer in inputs[1]]
    return numbers, rings
