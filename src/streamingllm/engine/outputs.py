"""Step outputs, usage, completions and statistics of an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from streamingllm.finish_reason import FinishReason
from streamingllm.stream.next_token import TokenLogprobs

State = Literal["waiting", "prefilling", "decoding", "paused", "idle", "finished"]


@dataclass(frozen=True)
class Usage:
    """Count the tokens of one request and of its stream.

    Args:
        num_prompt_tokens: tokens submitted, a pinned prefix that came with them included.
        num_generated_tokens: tokens generated for this sample.
        num_cached_tokens: tokens of the whole stream that are cached now.
        num_evicted_tokens: tokens of the whole stream that were evicted.
    """

    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_cached_tokens: int = 0
    num_evicted_tokens: int = 0


@dataclass(frozen=True)
class StepOutput:
    """Report what a step did for one stream.

    Args:
        stream_id: the stream that was submitted to.
        token_ids: tokens generated in this step; empty if the text ended without one.
        text: text that has become certain, often empty, or of more than these tokens.
        finish_reason: why the text ended; None while it goes on.
        usage: counts after the step.
        logprobs: one entry per token if `SamplingParams.logprobs` asks for them.
        sample_index: number of the sample, 0 to n - 1.
        stop_string: that ended the text, if one did.
        error: why the stream failed; None unless `finish_reason` is "failed".
    """

    stream_id: str
    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)
    logprobs: tuple[TokenLogprobs, ...] = ()
    sample_index: int = 0
    stop_string: str | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Completion:
    """Hold one generated text.

    Args:
        prompt: text or token ids, as they were given.
        text: the generated text.
        token_ids: the generated tokens, the one that ended the text included.
        finish_reason: why the text ended.
        usage: counts at its end.
        logprobs: one entry per token if `SamplingParams.logprobs` asks for them.
        sample_index: number of the sample, 0 to n - 1.
        error: why the stream failed; None unless `finish_reason` is "failed".
    """

    prompt: str | tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprobs, ...] = ()
    sample_index: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class EngineStats:
    """Count the streams, tokens and bytes of an engine.

    Args:
        num_slots: streams that fit at once.
        num_free_slots: slots without a stream.
        num_streams: open streams in each state.
        num_steps: steps so far.
        num_prefilled_tokens: tokens of prompts fed so far.
        num_generated_tokens: tokens generated so far.
        nbytes: bytes of the keys and values of all slots.
        bytes_per_stream: bytes of one slot.
        is_compiled: whether decode steps run compiled now.
    """

    num_slots: int
    num_free_slots: int
    num_streams: dict[State, int]
    num_steps: int
    num_prefilled_tokens: int
    num_generated_tokens: int
    nbytes: int
    bytes_per_stream: int
    is_compiled: bool
