"""Decode steps on a GPU: a CUDA graph for each number of streams and each set of rings."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from streamingllm.errors import first_line

MOST_GRAPHS = 64  # an engine has one for each size of a step
# Facts of a ring that a graph depends on. A step has a hundred rings, and `map` is faster there.
_RING_FACTS = (Tensor.data_ptr, Tensor.size, Tensor.stride)
_log = logging.getLogger("streamingllm")


@dataclass(frozen=True)
class Graph:
    """A captured step: `replay` reads what it was captured with and overwrites `logits`.

    What lies between is in `pool`, which lives as long as one of its graphs.
    """

    replay: Callable[[], object]
    logits: Tensor
    pool: Any


class Recorder(Protocol):
    """Recorder that captures steps on a device."""

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        """Run a step where the next is captured, and return its logits."""
        ...

    def capture(self, step: Callable[[], Tensor], pool: Any) -> Graph:
        """Capture a step without running it.

        Args:
            step: returns logits.
            pool: of another graph; None to begin a new one.

        Raises:
            RuntimeError: it does what cannot be captured.
        """
        ...


class CudaRecorder:
    """Capture on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        """Run a step on that stream: cuBLAS has a workspace for each."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            logits = step()
        current.wait_stream(self._stream)
        logits.record_stream(current)
        return logits

    def capture(self, step: Callable[[], Tensor], pool: Any) -> Graph:
        """Capture a step; other threads may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        capturing = torch.cuda.graph(
            graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
        )
        # A capture that fails leaves its stream the current one.
        current = torch.cuda.stream(torch.cuda.current_stream(self._device))
        with torch.cuda.device(self._device), current, capturing:
            logits = step()
        return Graph(graph.replay, logits, graph.pool())


@dataclass
class _Kind:
    """Steps that one graph serves; `numbers` is what it reads, on the device."""

    numbers: Tensor
    graph: Graph | None = None


class CapturedSteps:
    """Run the first step of each kind as it is, capture the second, and replay that from then on.

    A graph has addresses in it, so steps are of one kind if they have as many streams and the same
    rings. A step writes and may not run twice for one token, so it is a real one that warms up what
    capturing needs: kernels are compiled, libraries take their workspaces. Graphs share one memory
    pool, for the logits of one are copied before another is replayed.

    Args:
        recorder: captures.
        device: where steps run.

    Attributes:
        num_first_steps: steps so far that were the first of their kind or captured, which take
            longer than others.
    """

    def __init__(self, recorder: Recorder, device: torch.device) -> None:
        self._recorder = recorder
        self._device = device
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._can_capture = True
        self.num_first_steps = 0

    @property
    def num_graphs(self) -> int:
        """Graphs that are kept, at most `MOST_GRAPHS`."""
        return sum(kind.graph is not None for kind in self._kinds.values())

    def run(
        self, numbers: Tensor, rings: Sequence[Tensor], step: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Run one step and return its logits, which nobody else writes to.

        Args:
            numbers: what the step takes, on the host; [..., batch].
            rings: all that it writes.
            step: takes `numbers` on the device, returns logits.
        """
        with torch.inference_mode():
            if not self._can_capture:
                return step(numbers.to(self._device))
            key = (numbers.shape[-1], *(tuple(map(f, rings)) for f in _RING_FACTS))
            kind = self._kinds.get(key)
            if kind is None:
                self.num_first_steps += 1
                kind = _Kind(numbers.to(self._device))
                logits = self._recorder.warm_up(lambda: step(kind.numbers))
                self._keep(key, kind)
                return logits
            self._kinds.move_to_end(key)
            # Not from pinned memory: whoever chose these tokens has waited for the GPU already.
            kind.numbers.copy_(numbers)
            return self._replay(kind, step)

    def begin_anew(self) -> None:
        """Drop all graphs: steps are another code from now on."""
        self._kinds.clear()
        self._can_capture = True

    def _keep(self, key: Hashable, kind: _Kind) -> None:
        self._kinds[key] = kind
        if len(self._kinds) > MOST_GRAPHS:
            self._kinds.popitem(last=False)

    def _replay(self, kind: _Kind, step: Callable[[Tensor], Tensor]) -> Tensor:
        if kind.graph is None:
            graphs = (other.graph for other in self._kinds.values())
            self.num_first_steps += 1
            pool = next((graph.pool for graph in graphs if graph is not None), None)
            try:
                kind.graph = self._recorder.capture(lambda: step(kind.numbers), pool)
            except RuntimeError as error:
                _log.warning("decode steps are not captured: %s", first_line(error))
                self._kinds.clear()
                self._can_capture = False
                return step(kind.numbers)
        kind.graph.replay()
        return kind.graph.logits.clone()
