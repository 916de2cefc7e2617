"""Whole texts for a list of prompts, from an engine that nothing else steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamingllm.engine.outputs import Completion, StepOutput
from streamingllm.errors import CapacityError, InputError
from streamingllm.stream.next_token import TokenLogprobs
from streamingllm.stream.sampling import SamplingParams

if TYPE_CHECKING:
    from streamingllm.engine.engine import Engine

Prompt = str | Sequence[int]
Prompts = str | Sequence[str] | Sequence[Sequence[int]]


@dataclass
class _Text:
    """One sample while it is generated."""

    prompt: Prompt
    sample_index: int
    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    last: StepOutput | None = None

    def add(self, output: StepOutput) -> None:
        self.pieces.append(output.text)
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        self.last = output

    @property
    def is_finished(self) -> bool:
        return self.last is not None and self.last.finish_reason is not None

    def completion(self) -> Completion:
        assert self.last is not None
        assert self.last.finish_reason is not None
        return Completion(
            prompt=self.prompt if isinstance(self.prompt, str) else tuple(self.prompt),
            text="".join(self.pieces),
            token_ids=tuple(self.token_ids),
            finish_reason=self.last.finish_reason,
            usage=self.last.usage,
            logprobs=tuple(self.logprobs),
            sample_index=self.sample_index,
            error=self.last.error,
        )


def generate(
    engine: Engine, prompts: Prompts, params: SamplingParams | Sequence[SamplingParams]
) -> list[Completion]:
    """Return the completions of all prompts; see `Engine.generate`.

    Outputs of other streams are set aside for the next `Engine.step`.
    """
    each: list[Prompt] = [prompts] if isinstance(prompts, str) else list(prompts)
    params_of = [params] * len(each) if isinstance(params, SamplingParams) else list(params)
    if len(params_of) != len(each):
        raise InputError(
            f"params has {len(params_of)} entries for {len(each)} prompts; pass one for each, or "
            "one for all"
        )
    ids_of = [engine.inputs.encode(prompt, is_beginning=True) for prompt in each]
    for number, ids in enumerate(ids_of):
        if not ids:
            raise InputError(f"prompts[{number}] is empty; pass at least one token")
    texts = [
        [_Text(prompt, index) for index in range(own.n)]
        for prompt, own in zip(each, params_of, strict=True)
    ]
    queue = deque(range(len(each)))
    open_texts: dict[str, int] = {}
    others: list[StepOutput] = []
    try:
        while queue or open_texts:
            while queue:
                number = queue[0]
                stream_id = _open(engine, ids_of[number], params_of[number])
                if stream_id is None:
                    break
                open_texts[stream_id] = queue.popleft()
            if not engine.has_work:
                raise CapacityError(
                    "The slots are full: all of them belong to idle streams; close one of them"
                )
            for output in engine.step():
                if output.stream_id not in open_texts:
                    others.append(output)
                    continue
                samples = texts[open_texts[output.stream_id]]
                samples[output.sample_index].add(output)
                if all(sample.is_finished for sample in samples):
                    del open_texts[output.stream_id]
                    _close(engine, output.stream_id)
    finally:
        for stream_id in open_texts:
            _close(engine, stream_id)
        engine.put_back(others)
    return [sample.completion() for samples in texts for sample in samples]


def _open(engine: Engine, ids: list[int], params: SamplingParams) -> str | None:
    """Submit a prompt and return its stream's id, or None if there is no room for it yet.

    Raises:
        CapacityError: there is no room, and no step will make any.
    """
    stream_id = None
    try:
        stream_id = engine.open_stream()
        engine.submit(stream_id, ids, params)
    except CapacityError:
        if stream_id is not None:
            _close(engine, stream_id)
        if not engine.has_work:
            raise
        return None
    return stream_id


def _close(engine: Engine, stream_id: str) -> None:
    if stream_id in engine.stream_ids:  # a failed stream is not
        engine.close_stream(stream_id)
