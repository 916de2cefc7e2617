"""What stands in for CUDA graphs where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from streamingllm.graphs.cuda_graphs import Graph, Recorder


class Rerun:
    """Run again, at each replay, what was captured: with the tensors of then, as a graph does."""

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        return step()

    def capture(self, step: Callable[[], Tensor], pool: Any) -> Graph:
        logits = torch.empty(0)  # replays overwrite it

        def replay() -> None:
            out = step()
            logits.resize_(out.shape).copy_(out)

        return Graph(replay, logits, pool or object())


class Diary:
    """Write down what a recorder is asked for."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.entries: list[str] = []

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        self.entries.append("run")
        return self._recorder.warm_up(step)

    def capture(self, step: Callable[[], Tensor], pool: Any) -> Graph:
        self.entries.append("capture")
        graph = self._recorder.capture(step, pool)

        def replay() -> None:
            self.entries.append("replay")
            graph.replay()

        return Graph(replay, graph.logits, graph.pool)
