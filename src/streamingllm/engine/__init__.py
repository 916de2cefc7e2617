"""Many streams, one step: admission, scheduling, sampling, and the text of each stream."""

from __future__ import annotations

from streamingllm.engine.async_engine import AsyncEngine as AsyncEngine
from streamingllm.engine.engine import Engine as Engine
from streamingllm.engine.outputs import Completion as Completion
from streamingllm.engine.outputs import EngineStats as EngineStats
from streamingllm.engine.outputs import StepOutput as StepOutput
from streamingllm.engine.outputs import Usage as Usage
from streamingllm.engine.stream_state import StreamState as StreamState
