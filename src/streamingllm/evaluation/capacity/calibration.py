"""Measure the speed of this machine with a model, in a minute or less."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamingllm.config import StreamConfig
from streamingllm.engine import Engine
from streamingllm.evaluation.capacity.speed import Speed
from streamingllm.stream.sampling import SamplingParams

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel

_PROMPTS = (16, 256)  # tokens of a short and a long prompt
_REPEATS = 5
_WITHOUT_END = 1_000_000


def measure_speed(
    lm: LanguageModel,
    config: StreamConfig,
    num_streams: int = 8,
    *,
    steps: int = 20,
    compile: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time prompts, decode steps and moves of an engine.

    A prompt takes what it adds to the steps of the other streams, because a busy engine reads it in
    small parts between and within them.

    Args:
        lm: model and tokenizer.
        config: cache of each stream.
        num_streams: that decode at once.
        steps: decode steps of each measurement, at least 2.
        compile: the decode step first.
        clock: returns seconds; processor time leaves out what other programs take.
    """
    with Engine(lm, config, max_streams=num_streams) as engine:
        if compile:
            engine.compile(wait=True)
        meter = _Meter(engine, config, clock, steps)
        short, long = meter.prompt_seconds(_PROMPTS, num_streams - 1)
        each = max(0.0, (long - short) / (_PROMPTS[1] - _PROMPTS[0]))
        one = meter.step_seconds(1, 1)
        many = meter.step_seconds(num_streams, 1)
        full = meter.step_seconds(num_streams, config.cache_size)
        rate = meter.copy_bytes_per_second()
    per_token = max(0.0, (many - one) / max(1, num_streams - 1))
    extra_entries = max(1, config.cache_size - steps // 2)
    return Speed(
        step_seconds=max(0.0, one - per_token),
        token_seconds=per_token,
        entry_seconds=max(0.0, (full - many) / num_streams / extra_entries),
        pass_seconds=max(0.0, short - _PROMPTS[0] * each),
        prefill_seconds=each,
        prefill_entry_seconds=0.0,
        copy_bytes_per_second=rate,
    )


class _Meter:
    """Time parts of an engine's work."""

    def __init__(
        self, engine: Engine, config: StreamConfig, clock: Callable[[], float], steps: int
    ) -> None:
        self._engine, self._config, self._clock, self._steps = engine, config, clock, steps

    def prompt_seconds(self, lengths: Sequence[int], num_others: int) -> list[float]:
        """Return the median seconds that a prompt and its first token add to others' steps."""
        with self._decoding(num_others, 1):
            step = self._median_step() if num_others else 0.0
            return [
                statistics.median([self._added(tokens, step) for _ in range(_REPEATS + 1)][1:])
                for tokens in lengths
            ]

    def step_seconds(self, num_streams: int, entries: int) -> float:
        """Return the median seconds of a step of streams with this number of entries each."""
        with self._decoding(num_streams, entries):
            return self._median_step()

    @contextmanager
    def _decoding(self, num_streams: int, entries: int) -> Iterator[None]:
        """Let streams with this number of entries decode until the body ends."""
        # No stream may end while the prompts of others are prefilled, however slowly.
        params = SamplingParams(max_new_tokens=_WITHOUT_END, ignore_eos=True)
        stream_ids = [self._engine.open_stream() for _ in range(num_streams)]
        for stream_id in stream_ids:
            self._engine.submit(stream_id, _ids(entries), params)
        while any(self._engine.state(stream_id) != "decoding" for stream_id in stream_ids):
            self._engine.step()
        yield
        for stream_id in stream_ids:
            self._engine.close_stream(stream_id)

    def _median_step(self) -> float:
        self._engine.step()
        return statistics.median([self._timed(self._engine.step) for _ in range(self._steps)])

    def _added(self, tokens: int, step: float) -> float:
        """Return the seconds of a prompt and its first token, less those of steps without it."""
        stream_id = self._engine.open_stream()
        self._engine.submit(stream_id, _ids(tokens), SamplingParams(max_new_tokens=1))
        start, added, has_ended = self._clock(), 0.0, False
        while not has_ended:
            outputs = self._engine.step()
            added -= step
            has_ended = any(x.stream_id == stream_id and x.finish_reason for x in outputs)
        added += self._clock() - start
        self._engine.close_stream(stream_id)
        return added

    def copy_bytes_per_second(self) -> float:
        """Return the rate at which a full state is exported and imported, each way on its own."""
        stream_id = self._engine.open_stream()
        ids = _ids(self._config.cache_size)
        self._engine.submit(stream_id, ids, SamplingParams(max_new_tokens=1))
        self._run()
        rates = []
        for _ in range(_REPEATS):
            start = self._clock()
            state = self._engine.export_state(stream_id)
            self._engine.close_stream(stream_id)
            stream_id = self._engine.open_stream(state=state)
            rates.append(2 * state.nbytes / max(1e-6, self._clock() - start))
        self._engine.close_stream(stream_id)
        return statistics.median(rates)

    def _run(self) -> None:
        while self._engine.has_work:
            self._engine.step()

    def _timed(self, work: Callable[[], object]) -> float:
        start = self._clock()
        work()
        return self._clock() - start


def _ids(number: int) -> Sequence[int]:
    return [1 + k % 50 for k in range(number)]
