"""Drive an engine step by step, and compare its tokens with those of streams alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from streamingllm import Engine, LanguageModel, SamplingParams, Stream, StreamConfig
from streamingllm.engine import StepOutput, StreamState

TIE = 1e-3  # difference of two logits that floating point may turn round


def random_ids(length: int, seed: int, vocab_size: int = 257) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (length,), generator=generator).tolist()


def free(max_new_tokens: int | None = None, **fields: Any) -> SamplingParams:
    """Parameters of a text that no eos ends."""
    return SamplingParams(max_new_tokens=max_new_tokens, ignore_eos=True, **fields)


ENDLESS = free(None)


def start(
    engine: Engine,
    prompt: str | Sequence[int],
    params: SamplingParams = ENDLESS,
    *,
    deadline: float | None = None,
    **options: Any,
) -> str:
    """Open a stream, submit a prompt, and return the id."""
    stream_id = engine.open_stream(**options)
    engine.submit(
        stream_id, engine.inputs.encode(prompt, is_beginning=True), params, deadline=deadline
    )
    return stream_id


def run(engine: Engine, *, close: bool = True) -> Iterator[StepOutput]:
    """Step until nothing is left to do; `close` streams whose text has ended."""
    while engine.has_work:
        for output in engine.step():
            yield output
            if close and output.finish_reason is not None and output.stream_id in engine.stream_ids:
                engine.close_stream(output.stream_id)


def tokens_of(outputs: Sequence[StepOutput], stream_id: str, sample_index: int = 0) -> list[int]:
    return [
        token
        for output in outputs
        if output.stream_id == stream_id and output.sample_index == sample_index
        for token in output.token_ids
    ]


def text_of(outputs: Sequence[StepOutput], stream_id: str, sample_index: int = 0) -> str:
    return "".join(
        output.text
        for output in outputs
        if output.stream_id == stream_id and output.sample_index == sample_index
    )


def config_alone(config: StreamConfig, num_pinned_tokens: int) -> StreamConfig:
    """Return the configuration of a stream alone that pins as many tokens."""
    return StreamConfig.with_cache_size(
        config.cache_size,
        max(config.num_sink_tokens, num_pinned_tokens),
        max_rewind_tokens=config.max_rewind_tokens,
        quantize_cache=config.quantize_cache,
    )


def check_alone(
    lm: LanguageModel, ids: list[int], is_generated: list[bool], config: StreamConfig
) -> None:
    """Check that each generated token is the most probable one of a stream alone."""
    logits = Stream(lm.model, config).feed(torch.tensor(ids))
    best = logits.max(dim=-1)
    for i in range(1, len(ids)):
        if is_generated[i]:
            assert logits[i - 1, ids[i]] >= best.values[i - 1] - TIE, f"token {i} of {len(ids)}"


class Record:
    """Tokens that each stream of an engine has read and generated, seen from outside."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ids: dict[str, list[int]] = defaultdict(list)
        self.is_generated: dict[str, list[bool]] = defaultdict(list)
        self.pinned: dict[str, int] = {}

    def read(self, stream_id: str, ids: Sequence[int]) -> None:
        self.ids[stream_id] += ids
        self.is_generated[stream_id] += [False] * len(ids)

    def start(self, ids: list[int], params: SamplingParams = ENDLESS) -> str:
        stream_id = start(self.engine, ids, params)
        self.read(stream_id, ids)
        return stream_id

    def step(self) -> list[StepOutput]:
        outputs = self.engine.step()
        self.take(outputs)
        return outputs

    def take(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            assert output.error is None
            self.ids[output.stream_id] += output.token_ids
            self.is_generated[output.stream_id] += [True] * len(output.token_ids)

    def run(self) -> None:
        while self.engine.has_work:
            for output in self.step():
                if output.finish_reason is not None:
                    self.engine.close_stream(output.stream_id)

    def copy(self, stream_id: str, other: str) -> None:
        self.ids[other] = [*self.ids[stream_id]]
        self.is_generated[other] = [*self.is_generated[stream_id]]
        self.pinned[other] = self.pinned.get(stream_id, 0)

    def rewind(self, stream_id: str, num_tokens: int) -> None:
        most = len(self.ids[stream_id]) - num_tokens
        del self.ids[stream_id][most:]
        del self.is_generated[stream_id][most:]

    def check(self) -> None:
        engine = self.engine
        for stream_id, ids in self.ids.items():
            if stream_id in engine.stream_ids:
                state = engine.export_state(stream_id)
                assert state.num_seen_tokens + len(state.pending) == len(ids)
                assert [*state.token_tail, *state.pending] == ids[-_known(state) :]
            config = config_alone(engine.config, self.pinned.get(stream_id, 0))
            check_alone(engine.lm, ids, self.is_generated[stream_id], config)


def _known(state: StreamState) -> int:
    return len(state.token_tail) + len(state.pending)
