"""Many endless streams on one model, advanced together step by step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from streamingllm.config import StreamConfig
from streamingllm.engine.model_runner import ModelRunner
from streamingllm.engine.offline import Prompts, generate
from streamingllm.engine.outputs import Completion, EngineStats, StepOutput
from streamingllm.engine.prefill_budget import PrefillBudget
from streamingllm.engine.scheduler import Scheduler
from streamingllm.engine.slot_pool import SlotPool
from streamingllm.engine.stream_commands import StreamCommands
from streamingllm.errors import ConfigError
from streamingllm.models import LanguageModel
from streamingllm.stream.sampling import GREEDY, SamplingParams

_UNNOTICED_SECONDS = 0.06  # between two words


class Engine(StreamCommands):
    """Hold many streams and advance all of them in one step.

    One thread owns an engine: the first that steps. `AsyncEngine` gives it a thread of its own.
    Each stream gets the tokens it would get alone, to the limits of floating point. Batches and
    chunks of other sizes add up the same products in other orders.

    Args:
        lm: model and tokenizer.
        config: which tokens each stream keeps; `chunk_size` tokens of a prompt are prefilled at
            once while no stream decodes.
        max_streams: slots; None for the number that the budget allows, or 8 without one.
        memory_budget_bytes: bound on the keys and values of all slots, which are allocated here.
        max_pinned_tokens: longest pinned prefix; None for `config.num_sink_tokens`.
        max_waiting: streams that may wait for a slot.
        max_stall: bound on the duration of a step that prefills, as a multiple of one that does
            not. On a GPU, whose steps are short, 60 ms are always allowed unless it is 1.
        clock: seconds that deadlines are measured with.

    Raises:
        ConfigError: a value is out of range, or the budget does not hold one stream.
        UnsupportedModelError: the model cannot stream.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: StreamConfig | None = None,
        *,
        max_streams: int | None = None,
        memory_budget_bytes: int | None = None,
        max_pinned_tokens: int | None = None,
        max_waiting: int = 64,
        max_stall: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        config = config or StreamConfig()
        _check_settings(config, max_stall)
        pool = SlotPool(
            lm.model,
            config,
            max_streams=max_streams,
            memory_budget_bytes=memory_budget_bytes,
            max_pinned_tokens=max_pinned_tokens,
        )
        self._runner = ModelRunner(lm.model, pool)
        is_gpu = lm.model.device.type == "cuda"
        floor = _UNNOTICED_SECONDS if is_gpu and max_stall > 1.0 else 0.0
        budget = PrefillBudget(config.chunk_size, max_stall, unnoticed_seconds=floor)
        scheduler = Scheduler(pool, self._runner, budget, max_waiting)
        super().__init__(lm, config, pool, scheduler, clock)
        self._put_back: list[StepOutput] = []

    # Steps.

    def step(self) -> list[StepOutput]:
        """Decode one token for every running stream, and prefill a part of one prompt.

        Returns:
            outputs of all streams since the last step.

        Raises:
            Exception: the pass of all streams failed. No token of it is counted, so that the next
                call does it again. `fail_active` ends its streams. A failure in one stream ends
                that stream only.
        """
        self._owner.take()
        self._streams.expire()
        self._scheduler.step()
        return self.take_outputs()

    def fail_active(self, error: Exception) -> list[StepOutput]:
        """End every stream of a step that cannot succeed; return the outputs."""
        self._owner.check()
        self._scheduler.fail_active(error)
        return self.take_outputs()

    def generate(
        self, prompts: Prompts, params: SamplingParams | Sequence[SamplingParams] = GREEDY
    ) -> list[Completion]:
        """Generate a text for each prompt; more prompts than slots wait.

        Args:
            prompts: a text, several texts, or several lists of token ids.
            params: sampling parameters, of all or of each prompt.

        Returns:
            the completions in the order of prompts, `n` for each.

        Raises:
            InputError: a prompt is empty or out of the vocabulary, or `params` and prompts differ
                in number.
        """
        return generate(self, prompts, params)

    @property
    def has_work(self) -> bool:
        """Return whether a step would do anything."""
        is_due = self.seconds_to_deadline == 0.0
        return is_due or bool(self._put_back) or self._scheduler.has_work

    @property
    def seconds_to_deadline(self) -> float | None:
        """Seconds until the next deadline, 0 if one has passed; None without any."""
        return self._streams.seconds_to_deadline

    def take_outputs(self) -> list[StepOutput]:
        """Return the outputs since the last step, such as those of aborted streams."""
        outputs = [*self._put_back, *self._scheduler.take_outputs()]
        self._put_back = []
        self._streams.forget_failed(outputs)
        return outputs

    def put_back(self, outputs: Sequence[StepOutput]) -> None:
        """Let the next step return outputs that the caller has no use for."""
        self._put_back += outputs

    def compile(self, *, wait: bool = False) -> bool:
        """Compile the decode step; tell whether that can be done. Until it is, steps run slower.

        See `Stream.compile`; this takes up to twice as long, for one stream and for many. On a GPU
        it captures steps of all sizes too.

        Args:
            wait: return only when it is done.
        """
        self._owner.check()
        return self._runner.compile(wait=wait)

    def stats(self) -> EngineStats:
        """Return counts of streams, tokens and bytes."""
        self._owner.check()
        scheduler, pool = self._scheduler, self._pool
        streams = [*scheduler.running, *scheduler.waiting]
        return EngineStats(
            num_slots=pool.num_slots,
            num_free_slots=pool.num_free,
            num_streams=dict(Counter(stream.state for stream in streams)),
            num_steps=scheduler.num_steps,
            num_prefilled_tokens=scheduler.num_prefilled_tokens,
            num_generated_tokens=scheduler.num_generated_tokens,
            nbytes=pool.nbytes,
            bytes_per_stream=pool.bytes_per_stream,
            is_compiled=self._runner.is_compiled,
        )

    @property
    def batching_unsupported_reason(self) -> str | None:
        """Return why each stream needs a pass of its own; None if one step does all."""
        return self._runner.unsupported_reason

    # The end.

    def close(self) -> list[StepOutput]:
        """End all streams, free their memory, and return their last outputs.

        The model is as it was before.
        """
        if self._owner.is_closed:
            return []
        for stream_id in self.stream_ids:
            self.close_stream(stream_id)
        self._pool.close()
        self._owner.is_closed = True
        return self.take_outputs()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_settings(config: StreamConfig, max_stall: float) -> None:
    if config.strategy != "sinks":
        raise ConfigError(
            f"strategy={config.strategy!r} does not run in an engine; choose 'sinks', with "
            "num_sink_tokens=0 for window attention"
        )
    if not 1.0 <= max_stall < float("inf"):
        raise ConfigError(f"max_stall={max_stall} is out of range; choose a finite number >= 1")
