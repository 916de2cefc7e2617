"""Let texts go on: POST /v1/completions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from streamingllm.server.description import EVENT_STREAM
from streamingllm.server.encoders.chat import DONE, error_event
from streamingllm.server.encoders.common import (
    TurnOutcome,
    collect,
    first_event,
    to_json,
)
from streamingllm.server.encoders.completions import PromptEncoder, sum_of, text_forgetting
from streamingllm.server.sampling import requested_params
from streamingllm.server.schemas.common import ErrorBody
from streamingllm.server.schemas.completions import Completion, CompletionRequest, Prompt
from streamingllm.server.served_model import check_model, fingerprint
from streamingllm.server.sse import SseResponse, sse_event
from streamingllm.server.token_texts import TokenTexts
from streamingllm.server.turns import guarded, while_connected
from streamingllm.sessions.session_types import TextRequest
from streamingllm.sessions.turn import TurnEvent, TurnStarted
from streamingllm.sessions.turn_attempt import new_id, turn_seconds

router = APIRouter(tags=["completions"])
MAX_AT_ONCE = 8
DEFAULT_MAX_TOKENS = 16
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Completion,
        "description": "The texts, or a stream of pieces that ends with `data: [DONE]`.",
        "content": EVENT_STREAM,
    },
    400: {"model": ErrorBody, "description": "The request is wrong; `param` names the field."},
    404: {"model": ErrorBody, "description": "The model is not served here."},
    429: {"model": ErrorBody, "description": "Too many turns wait; see Retry-After."},
}


@router.post("/v1/completions", responses=_RESPONSES)
async def create_completion(request: Request, body: CompletionRequest) -> Response:
    """Go on from one or more prompts, without a chat template and without a session."""
    run = _Completion(request, body)
    if body.stream:
        return await run.streamed()
    return JSONResponse(await while_connected(request, run.answered()))


class _Completion:
    """Run the prompts of one request."""

    def __init__(self, request: Request, body: CompletionRequest) -> None:
        self._request = request
        self._body = body
        self._manager = request.app.state.manager
        self._envelope = {
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": int(turn_seconds()),
            "model": check_model(request, body.model),
            "system_fingerprint": fingerprint(request),
        }
        self._params = requested_params(
            body,
            request.app.state.settings.sampling_defaults(),
            max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
            logprobs=body.logprobs,
        )
        self._token_texts = None
        if body.logprobs is not None:
            self._token_texts = TokenTexts(self._manager.lm.tokenizer)

    async def answered(self) -> dict[str, Any]:
        """Return the answer to all prompts, a few of which run at once."""
        at_once = asyncio.Semaphore(MAX_AT_ONCE)

        async def run(prompt: Prompt) -> TurnOutcome:
            async with at_once, contextlib.aclosing(self._events(prompt)) as events:
                return await collect(await first_event(events), events)

        tasks = [asyncio.create_task(run(prompt)) for prompt in self._body.prompt]
        try:
            outcomes = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        choices: list[dict[str, Any]] = []
        for number, outcome in enumerate(outcomes):
            choices += self._encoder(number).choices(outcome)
        usage = sum_of([outcome.usage for outcome in outcomes])
        seen = text_forgetting(outcomes)
        return {**self._envelope, "choices": choices, "usage": usage, **seen}

    async def streamed(self) -> Response:
        """Return a stream of all prompts, one after the other; a wrong one refuses all."""
        for prompt in self._body.prompt[1:]:
            await self._manager.check_text(self._text_request(prompt))
        events = self._events(self._body.prompt[0])
        try:
            started = await while_connected(self._request, first_event(events))
        except BaseException:
            await events.aclose()
            raise
        return SseResponse(guarded(self._chunks(started, events), error_event), headers={})

    async def _chunks(
        self, started: TurnStarted, events: AsyncGenerator[TurnEvent, None]
    ) -> AsyncGenerator[bytes, None]:
        includes_usage = self._body.includes_usage
        envelope = self._envelope | ({"usage": None} if includes_usage else {})
        outcomes: list[TurnOutcome] = []
        last: dict[str, Any] | None = None
        for number in range(len(self._body.prompt)):
            if number:
                events = self._events(self._body.prompt[number])
            async with contextlib.aclosing(events):
                if number:
                    started = await first_event(events)
                async for choice, outcome in self._encoder(number).chunks(started, events):
                    chunk = {**envelope, "choices": [choice]}
                    if outcome is None:
                        yield sse_event(to_json(chunk))
                        continue
                    if last is not None:
                        yield sse_event(to_json(last))
                    last = chunk
                    if outcome not in outcomes:
                        outcomes.append(outcome)
        seen = text_forgetting(outcomes)
        assert last is not None
        if includes_usage:
            yield sse_event(to_json(last))
            usage = sum_of([outcome.usage for outcome in outcomes])
            last = {**envelope, "choices": [], "usage": usage}
        yield sse_event(to_json({**last, **seen}))
        yield DONE

    def _events(self, prompt: Prompt) -> AsyncGenerator[TurnEvent, None]:
        events: AsyncGenerator[TurnEvent, None] = self._manager.complete(self._text_request(prompt))
        return events

    def _text_request(self, prompt: Prompt) -> TextRequest:
        owner, truncation = self._request.state.owner, self._body.options.truncation
        return TextRequest(owner, prompt, self._params, truncation=truncation)

    def _encoder(self, number: int) -> PromptEncoder:
        prompt, echoed = self._body.prompt[number], ""
        if self._body.echo:
            echoed = prompt if isinstance(prompt, str) else self._manager.lm.decode(prompt)
        return PromptEncoder(number, self._params.n, echoed, self._token_texts)
