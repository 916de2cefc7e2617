"""Answers of /v1/completions."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamingllm.finish_reason import FinishReason
from streamingllm.server.encoders.chat import LEAST_LOGPROB, usage_fields
from streamingllm.server.encoders.common import TurnOutcome, forgetting
from streamingllm.server.token_texts import TokenTexts
from streamingllm.sessions.turn import SampleEnded, TextDelta, TurnEvent, TurnStarted, TurnUsage
from streamingllm.stream.next_token import TokenLogprobs


class _OffsetDecoder:
    """Find where tokens begin in the text that their bytes are."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")
        self._num_characters = 0

    def offset_of(self, token_bytes: bytes) -> int:
        """Return the number of characters before a token, which is the next one."""
        offset = self._num_characters
        self._num_characters += len(self._decoder.decode(token_bytes))
        return offset


@dataclass
class PromptEncoder:
    """Encode what follows one prompt.

    Args:
        number: of the prompt.
        num_samples: of each prompt.
        echoed: the prompt's text if the answer repeats it, else "".
        token_texts: of the model's tokens, if their probabilities were asked for.
    """

    number: int
    num_samples: int
    echoed: str = ""
    token_texts: TokenTexts | None = None
    _decoders: dict[int, _OffsetDecoder] = field(default_factory=dict)

    def choices(self, outcome: TurnOutcome) -> list[dict[str, Any]]:
        """Return the choices of a prompt that is done."""
        return [
            self._choice(
                sample,
                self.echoed + ended.message.text,
                outcome.logprobs.get(sample, ()),
                _finish_reason(ended),
            )
            for sample, ended in sorted(outcome.samples.items())
        ]

    async def chunks(
        self, started: TurnStarted, events: AsyncIterator[TurnEvent]
    ) -> AsyncIterator[tuple[dict[str, Any], TurnOutcome | None]]:
        """Yield the choices of a stream; the last ones come with the outcome."""
        outcome = TurnOutcome(started)
        if self.echoed:
            for sample in range(self.num_samples):
                yield self._choice(sample, self.echoed, (), None), None
        async for event in events:
            outcome.add(event)
            if isinstance(event, TextDelta):
                yield self._choice(event.sample, event.text, event.logprobs, None), None
        for sample, ended in sorted(outcome.samples.items()):
            yield self._choice(sample, "", (), _finish_reason(ended)), outcome

    def _choice(
        self, sample: int, text: str, logprobs: Sequence[TokenLogprobs], reason: str | None
    ) -> dict[str, Any]:
        return {
            "index": self.number * self.num_samples + sample,
            "text": text,
            "logprobs": self._logprobs(sample, logprobs),
            "finish_reason": reason,
        }

    def _logprobs(self, sample: int, found: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        if self.token_texts is None:
            return None
        decoder = self._decoders.setdefault(sample, _OffsetDecoder())
        token_bytes = [self.token_texts.bytes_of(one.token_id) for one in found]
        return {
            "tokens": [self._name(one.token_id) for one in found],
            "token_logprobs": [max(one.logprob, LEAST_LOGPROB) for one in found],
            "top_logprobs": [
                {self._name(token): max(logprob, LEAST_LOGPROB) for token, logprob in one.top}
                for one in found
            ],
            "text_offset": [decoder.offset_of(piece) for piece in token_bytes],
        }

    def _name(self, token_id: int) -> str:
        """Return the text of a token; bytes that are no text have a notation of their own."""
        assert self.token_texts is not None
        token_bytes = self.token_texts.bytes_of(token_id)
        try:
            return token_bytes.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)


def sum_of(usages: Sequence[TurnUsage]) -> dict[str, Any]:
    """Return the usage of several prompts as one."""
    total = TurnUsage(
        num_cached_tokens=sum(usage.num_cached_tokens for usage in usages),
        num_fed_tokens=sum(usage.num_fed_tokens for usage in usages),
        num_generated_tokens=sum(usage.num_generated_tokens for usage in usages),
        num_reasoning_tokens=sum(usage.num_reasoning_tokens for usage in usages),
        num_evicted_tokens=sum(usage.num_evicted_tokens for usage in usages),
    )
    return usage_fields(total)


def text_forgetting(outcomes: Sequence[TurnOutcome]) -> dict[str, Any]:
    """Return the field `streamingllm` for one prompt; several have none in common."""
    if len(outcomes) != 1 or outcomes[0].ended is None:
        return {}
    return {"streamingllm": forgetting(outcomes[0].ended)}


def _finish_reason(ended: SampleEnded) -> str:
    cut_off = (FinishReason.LENGTH, FinishReason.DEADLINE)
    return "length" if ended.reason in cut_off else "stop"
