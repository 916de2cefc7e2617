"""Go on from a text: no chat template, no session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from streamingllm.engine import AsyncEngine, Usage
from streamingllm.errors import ContextLengthError, InputError, StreamingLLMError
from streamingllm.finish_reason import FinishReason
from streamingllm.models import LanguageModel
from streamingllm.sessions.answer import Answer
from streamingllm.sessions.answer_parser import parser_for
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.session_types import TextRequest
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.transcript import new_message_id
from streamingllm.sessions.turn import (
    SessionView,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    TurnUsage,
)
from streamingllm.stream.sampling import SamplingParams


class TextRunner:
    """Generate from raw prompts, each in a stream that is closed afterwards.

    Args:
        engine: generates.
        lm: its model and tokenizer.
        templates: tokenises outside the event loop.
        residency: lends slots.
        cache_size: tokens that a stream can see.
        turn_seconds: a text ends after so long, unless its request says otherwise; None for never.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        lm: LanguageModel,
        templates: TemplateCache,
        residency: ResidencyPolicy,
        cache_size: int,
        turn_seconds: float | None = None,
    ) -> None:
        self._engine = engine
        self._lm = lm
        self._templates = templates
        self._residency = residency
        self._cache_size = cache_size
        self._turn_seconds = turn_seconds

    async def check(self, request: TextRequest) -> tuple[list[int], SamplingParams]:
        """Return the prompt's ids and the sampling parameters of a text that can be run.

        Raises:
            InputError: the prompt is empty, a token is unknown, or a parameter is wrong.
            ContextLengthError: the prompt does not fit, and nothing may be dropped.
        """
        ids = await self._ids(request)
        params = self._params(request, len(ids))
        await self._engine.check(params, ids)
        return ids, params

    async def run(self, request: TextRequest) -> AsyncGenerator[TurnEvent, None]:
        """Feed the prompt and stream the text; see `SessionManager.complete`."""
        ids, params = await self.check(request)
        answers = [
            Answer(sample, parser_for(None, ()), new_message_id()) for sample in range(params.n)
        ]
        slots = self._residency.slots
        await slots.acquire(request.owner)
        stream_id: str | None = None
        try:
            stream_id = await self._engine.open_stream()
            yield TurnStarted(_view(len(ids), 0), answers[0].message_id, len(ids), 0)
            usage = Usage()
            seconds = request.deadline or self._turn_seconds
            outputs = self._engine.generate(stream_id, ids, params, deadline=seconds)
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    usage = output.usage if output.usage.num_cached_tokens else usage
                    for event in answers[output.sample_index].add(output):
                        yield event
            failed = next((a for a in answers if a.reason is FinishReason.FAILED), None)
            if failed is not None:
                stream_id = None
                raise failed.error or StreamingLLMError("the stream failed; retry")
            num_generated = sum(answer.num_tokens for answer in answers)
            for answer in answers:
                yield answer.ended()
            evicted = usage.num_evicted_tokens
            yield TurnEnded(
                _view(len(ids) + answers[0].num_tokens, evicted),
                TurnUsage(0, len(ids), num_generated, 0, evicted),
            )
        finally:
            await asyncio.shield(self._close(stream_id))

    async def _ids(self, request: TextRequest) -> list[int]:
        if isinstance(request.prompt, str):
            ids = await self._templates.encode_text(request.prompt, is_beginning=True)
        else:
            ids = list(request.prompt)
        if not ids:
            raise InputError("prompt is empty; send at least one token")
        return ids

    def _params(self, request: TextRequest, num_tokens: int) -> SamplingParams:
        if request.truncation != "disabled":
            return request.params
        room = self._cache_size - num_tokens
        if room < 1:
            raise ContextLengthError(
                f"truncation='disabled': the prompt of {num_tokens} tokens exceeds the context "
                f"size of {self._cache_size} tokens; shorten it or send truncation='auto'"
            )
        most = request.params.max_new_tokens
        return replace(request.params, max_new_tokens=room if most is None else min(most, room))

    async def _close(self, stream_id: str | None) -> None:
        if stream_id is not None:
            with contextlib.suppress(InputError):  # it failed, or the engine is closed
                await self._engine.close_stream(stream_id)
        self._residency.slots.release()
        await self._residency.slots.serve()


def _view(num_seen: int, num_evicted: int) -> SessionView:
    return SessionView("", num_seen, num_seen - num_evicted, 0, None, None, 0)
