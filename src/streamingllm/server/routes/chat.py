"""Answer chats: POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from streamingllm.server.description import EVENT_STREAM, TURN_HEADERS, turn_headers
from streamingllm.server.encoders.chat import (
    ChatFacts,
    chat_chunks,
    chat_completion,
    error_event,
)
from streamingllm.server.identity import identity_of
from streamingllm.server.messages import chat_messages, chat_tools, split_system_prompt
from streamingllm.server.reasoning import reasoning_variables
from streamingllm.server.sampling import requested_params
from streamingllm.server.schemas.chat import ChatRequest, NamedToolChoice
from streamingllm.server.schemas.chat_answers import ChatCompletion
from streamingllm.server.schemas.common import ErrorBody
from streamingllm.server.served_model import check_model, fingerprint
from streamingllm.server.token_texts import TokenTexts
from streamingllm.server.turns import answered_turn, streamed_turn
from streamingllm.sessions.turn import ToolMode, TurnRequest
from streamingllm.sessions.turn_attempt import new_id, turn_seconds

router = APIRouter(tags=["chat"])
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "The answer, or a stream of chunks that ends with `data: [DONE]`.",
        "content": EVENT_STREAM,
        "headers": TURN_HEADERS,
    },
    400: {"model": ErrorBody, "description": "The request is wrong; `param` names the field."},
    404: {"model": ErrorBody, "description": "The model is not served here."},
    429: {"model": ErrorBody, "description": "Too many turns wait; see Retry-After."},
}


@router.post("/v1/chat/completions", responses=_RESPONSES, dependencies=[Depends(turn_headers)])
async def create_chat_completion(request: Request, body: ChatRequest) -> Response:
    """Answer the last message of a chat; the session goes on where its history matches."""
    manager = request.app.state.manager
    model = check_model(request, body.model)
    turn = _turn_request(request, body)
    facts = ChatFacts(
        id=new_id("chatcmpl-"),
        created=int(turn_seconds()),
        model=model,
        fingerprint=fingerprint(request),
        num_samples=turn.params.n,
        includes_usage=body.includes_usage,
        token_texts=TokenTexts(manager.lm.tokenizer) if body.logprobs else None,
    )
    events = manager.respond(turn)
    if body.stream:
        return await streamed_turn(
            request,
            events,
            lambda started, rest: chat_chunks(facts, started, rest),
            error_event,
        )
    return await answered_turn(request, events, lambda outcome: chat_completion(facts, outcome))


def _turn_request(request: Request, body: ChatRequest) -> TurnRequest:
    manager = request.app.state.manager
    options = body.options
    metadata = dict(body.metadata or {}) | ({"user": body.user} if body.user else {})
    identity, is_side_task = identity_of(
        request.headers, body.metadata, session_id=options.session_id
    )
    system_prompt, messages = split_system_prompt(chat_messages(body.messages))
    mode, tool_name = _tool_choice(body)
    return TurnRequest(
        owner=request.state.owner,
        messages=messages,
        params=requested_params(
            body,
            request.app.state.settings.sampling_defaults(),
            max_tokens=body.max_completion_tokens or body.max_tokens,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        ),
        identity=identity,
        system_prompt=system_prompt,
        tools=chat_tools(body.tools),
        tool_mode=mode,
        tool_name=tool_name,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        template_variables={
            **reasoning_variables(manager.lm, body.reasoning_effort),
            **(body.chat_template_kwargs or {}),
        },
        truncation=options.truncation,
        eviction=options.eviction,
        is_stored=body.store is not False,
        is_side_task=is_side_task,
        metadata=metadata,
    )


def _tool_choice(body: ChatRequest) -> tuple[ToolMode, str | None]:
    choice = body.tool_choice
    if isinstance(choice, NamedToolChoice):
        return "required", choice.function.name
    return choice or "auto", None
