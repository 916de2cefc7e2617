"""Many streams, one step: admission, scheduling, sampling, and what each stream has written."""

from __future__ import annotations

from streamingllm.engine.engine import Engine as Engine
from streamingllm.engine.grammar import Grammar as Grammar
from streamingllm.engine.params import GenerationParams as GenerationParams
from streamingllm.engine.scheduler import StepOutput as StepOutput
from streamingllm.engine.stream import EngineStream as EngineStream
