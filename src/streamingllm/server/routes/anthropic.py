"""Answer clients of Anthropic: POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from streamingllm.server.anthropic_messages import (
    anthropic_messages,
    anthropic_system_prompt,
    anthropic_tools,
    reasoning_of,
    tool_mode_of,
)
from streamingllm.server.description import EVENT_STREAM, TURN_HEADERS, turn_headers
from streamingllm.server.encoders.anthropic import (
    MessageFacts,
    error_event,
    message_body,
    message_events,
)
from streamingllm.server.identity import identity_of
from streamingllm.server.sampling import json_grammar, sampling_params
from streamingllm.server.schemas.anthropic import CountTokensRequest, MessagesRequest
from streamingllm.server.schemas.anthropic_answers import (
    AnthropicError,
    AnthropicMessage,
    TokenCountAnswer,
)
from streamingllm.server.served_model import check_model
from streamingllm.server.turns import answered_turn, streamed_turn, while_connected
from streamingllm.sessions.turn import Identity, TurnRequest
from streamingllm.stream.sampling import SamplingParams

router = APIRouter(tags=["messages"])
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": AnthropicError, "description": "The request is wrong."},
    404: {"model": AnthropicError, "description": "The model is not served here."},
    429: {"model": AnthropicError, "description": "Too many turns wait; see Retry-After."},
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": AnthropicMessage,
        "description": "The answer, or a stream of events from message_start to message_stop.",
        "content": EVENT_STREAM,
        "headers": TURN_HEADERS,
    }
}


@router.post("/v1/messages", responses=_ANSWER | _ERRORS, dependencies=[Depends(turn_headers)])
async def create_message(request: Request, body: MessagesRequest) -> Response:
    """Answer the last message; the session goes on where the history matches."""
    manager = request.app.state.manager
    model = check_model(request, body.model)
    metadata = {} if body.metadata is None else body.metadata.model_dump(exclude_none=True)
    identity, is_side_task = identity_of(
        request.headers, metadata, session_id=body.options.session_id
    )
    turn = _turn_request(
        request,
        body,
        params=_params(request, body),
        identity=identity,
        is_side_task=is_side_task,
        metadata=metadata,
        truncation=body.options.truncation,
        eviction=body.options.eviction,
    )
    facts = MessageFacts(model, reasoning_of(body, manager.lm).ignored)
    events = manager.respond(turn)
    if body.stream:
        return await streamed_turn(
            request,
            events,
            lambda started, rest: message_events(facts, started, rest),
            error_event,
        )
    return await answered_turn(request, events, lambda outcome: message_body(facts, outcome))


@router.post("/v1/messages/count_tokens", response_model=TokenCountAnswer, responses=_ERRORS)
async def count_tokens(request: Request, body: CountTokensRequest) -> TokenCountAnswer:
    """Count the tokens that an answer would build on."""
    check_model(request, body.model)
    turn = _turn_request(request, body, params=SamplingParams(), identity=Identity("new"))
    count = await while_connected(request, request.app.state.manager.count_tokens(turn))
    return TokenCountAnswer(input_tokens=count)


def _turn_request(request: Request, body: CountTokensRequest, **fields: Any) -> TurnRequest:
    choice = body.tool_choice
    return TurnRequest(
        owner=request.state.owner,
        messages=anthropic_messages(body.messages),
        system_prompt=anthropic_system_prompt(body),
        tools=anthropic_tools(body.tools),
        tool_mode=tool_mode_of(body),
        tool_name=None if choice is None else choice.name,
        parallel_tool_calls=choice is None or not choice.disable_parallel_tool_use,
        template_variables=reasoning_of(body, request.app.state.manager.lm).variables,
        **fields,
    )


def _params(request: Request, body: MessagesRequest) -> SamplingParams:
    format_ = body.output_format
    if format_ is None and body.output_config is not None:
        format_ = body.output_config.format
    return sampling_params(
        request.app.state.settings.sampling_defaults(),
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_tokens=body.max_tokens,
        stop=body.stop_sequences,
        grammar=None if format_ is None else json_grammar(format_.type, format_.schema_),
    )
