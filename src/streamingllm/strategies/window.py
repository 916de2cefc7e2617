"""Window attention: the last m tokens and no sinks (paper, figure 1b)."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.inputs import with_sink_token
from streamingllm.strategies.sinks import SinkStrategy


class WindowStrategy(SinkStrategy):
    """Window attention without sinks: it breaks when the first token is evicted (section 3.1).

    A sink token that the model was trained with stays.
    """

    name = "window"

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        none = replace(config, num_sink_tokens=0, sink_positions=None)
        super().__init__(model, with_sink_token(none, model))
