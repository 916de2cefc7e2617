"""Make a turn of a request for a response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamingllm.errors import ResponseNotFoundError
from streamingllm.server.errors import ApiError
from streamingllm.server.identity import identity_of
from streamingllm.server.messages import function_tool, split_system_prompt, system_prompt_of
from streamingllm.server.reasoning import reasoning_variables
from streamingllm.server.responses.compaction import Place
from streamingllm.server.responses.items import ReadInput, read_input
from streamingllm.server.sampling import json_grammar, sampling_params
from streamingllm.server.schemas.responses import (
    ConversationId,
    FunctionChoice,
    FunctionTool,
    ResponseOptions,
    ResponseRequest,
    SchemaFormat,
)
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import Identity, ToolMode, TurnRequest
from streamingllm.stream.grammar import Grammar
from streamingllm.stream.sampling import SamplingParams

_LOGPROBS = "message.output_text.logprobs"
Previous = Callable[[str], Place]
"""Find the place after a response; raises `ResponseNotFoundError`."""


@dataclass(frozen=True)
class Asked:
    """Hold what a request names: its owner, its headers, and how to find earlier responses.

    Args:
        manager: of the sessions.
        owner: of the client's key.
        headers: of the request.
        previous: finds the place after a response.
    """

    manager: SessionManager
    owner: str
    headers: Mapping[str, str]
    previous: Previous


async def turn_request(
    asked: Asked, body: ResponseOptions, defaults: SamplingParams
) -> TurnRequest:
    """Return the turn that a response is.

    Raises:
        ApiError: the request names something that is not there, or contradicts itself.
        SessionNotFoundError: there is no such conversation.
    """
    read = read_input(body.input)
    identity, is_side_task = await _identity(asked, body, read)
    await _check_calls(asked, identity, read)
    leading, messages = split_system_prompt(read.messages)
    instructions = [text for text in (body.instructions, leading) if text is not None]
    mode, tool_name = _tool_choice(body)
    full = body if isinstance(body, ResponseRequest) else None
    options = None if full is None else full.streamingllm
    effort = None if body.reasoning is None else body.reasoning.effort
    return TurnRequest(
        owner=asked.owner,
        messages=messages,
        params=defaults if full is None else _params(full, defaults),
        identity=identity,
        system_prompt=system_prompt_of(instructions),
        tools=None if body.tools is None else tuple(map(_tool, body.tools)),
        tool_mode=mode,
        tool_name=tool_name,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        template_variables=reasoning_variables(asked.manager.lm, effort),
        truncation=body.truncation or ("auto" if options is None else options.truncation),
        eviction=None if options is None else options.eviction,
        is_stored=full is None or full.store is not False,
        is_side_task=is_side_task,
        metadata={} if full is None else dict(full.metadata or {}),
    )


def response_facts(body: ResponseRequest, params: SamplingParams, model: str) -> dict[str, Any]:
    """Return the fields of a response that its request decides; the specification has them all."""
    conversation = body.conversation
    name = conversation.id if isinstance(conversation, ConversationId) else conversation
    reasoning = body.reasoning
    choice = body.tool_choice
    return {
        "model": model,
        "previous_response_id": body.previous_response_id,
        "instructions": body.instructions,
        "tools": [_tool_echo(tool) for tool in body.tools or ()],
        "tool_choice": choice.model_dump()
        if isinstance(choice, FunctionChoice)
        else choice or "auto",
        "truncation": body.truncation or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": _text_echo(body),
        "temperature": params.temperature,
        "top_p": params.top_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "top_logprobs": body.top_logprobs or 0,
        "reasoning": None
        if reasoning is None
        else {"effort": reasoning.effort, "summary": reasoning.summary},
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "store": body.store is not False,
        "background": body.background is True,
        "service_tier": "default",
        "metadata": dict(body.metadata or {}),
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "user": body.user,
        **({} if name is None else {"conversation": {"id": name}}),
    }


async def _identity(asked: Asked, body: ResponseOptions, read: ReadInput) -> tuple[Identity, bool]:
    if body.conversation is not None and body.previous_response_id is not None:
        raise ApiError(
            400,
            "conversation and previous_response_id contradict each other; send one of them",
            code="invalid_value",
            param="previous_response_id",
        )
    conversation = body.conversation
    name = conversation.id if isinstance(conversation, ConversationId) else conversation
    if name is not None:
        await asked.manager.get(asked.owner, name)  # a conversation is made by its own route
    place = read.place
    if body.previous_response_id is not None:
        try:
            place = place or asked.previous(body.previous_response_id)
        except ResponseNotFoundError as error:
            raise ApiError(
                404,
                f"Response with id {body.previous_response_id!r} not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            ) from error
    options = body.streamingllm if isinstance(body, ResponseRequest) else None
    metadata = body.metadata if isinstance(body, ResponseRequest) else None
    return identity_of(
        asked.headers,
        metadata,
        conversation=name,
        previous=None if place is None else (place.session_id, place.message_id),
        session_id=None if options is None else options.session_id,
    )


async def _check_calls(asked: Asked, identity: Identity, read: ReadInput) -> None:
    """Refuse results of calls that nobody asked for, and references to items that are not there."""
    if read.unknown_call() is None and not read.references:
        return
    known: tuple[Message, ...] = ()
    if identity.kind in ("point", "session"):
        known = (await asked.manager.get(asked.owner, identity.id)).messages
    call_id = read.unknown_call(known)
    if call_id is not None:
        raise ApiError(
            400,
            f"No tool call found for function call output with call_id {call_id!r}.",
            code="invalid_value",
            param="input",
        )
    ids = {message.id for message in known}
    ids |= {f"fc_{call.id}" for message in known for call in message.tool_calls}
    missing = next((name for name in read.references if name not in ids), None)
    if missing is not None:
        raise ApiError(
            404,
            f"Item with id {missing!r} not found; send the item itself",
            code="item_not_found",
            param="input",
        )


def _params(body: ResponseRequest, defaults: SamplingParams) -> SamplingParams:
    wants_logprobs = body.top_logprobs is not None or _LOGPROBS in (body.include or ())
    return sampling_params(
        defaults,
        temperature=body.temperature,
        top_p=body.top_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        max_tokens=body.max_output_tokens,
        seed=body.seed,
        stop=body.stop,
        grammar=_grammar(body),
        logprobs=(body.top_logprobs or 0) if wants_logprobs else None,
    )


def _grammar(body: ResponseRequest) -> Grammar | None:
    if body.text is None or body.text.format is None:
        return None
    asked = body.text.format
    return json_grammar(asked.type, asked.schema_ if isinstance(asked, SchemaFormat) else None)


def _tool_choice(body: ResponseOptions) -> tuple[ToolMode, str | None]:
    choice = body.tool_choice
    if isinstance(choice, FunctionChoice):
        return "required", choice.name
    return choice or "auto", None


def _tool(tool: FunctionTool) -> Mapping[str, Any]:
    is_strict = bool(tool.strict)
    return function_tool(tool.name, tool.description, tool.parameters, is_strict=is_strict)


def _tool_echo(tool: FunctionTool) -> dict[str, Any]:
    fields = ("name", "description", "parameters", "strict")
    echo = {name: getattr(tool, name) for name in fields}
    return {"type": "function", **echo, "strict": bool(tool.strict)}


def _choice_echo(choice: str | FunctionChoice | None) -> Any:
    return choice.model_dump() if isinstance(choice, FunctionChoice) else choice or "auto"


def _text_echo(body: ResponseRequest) -> dict[str, Any]:
    asked = None if body.text is None else body.text.format
    verbosity = (body.text.verbosity if body.text is not None else None) or "medium"
    if isinstance(asked, SchemaFormat):
        # The specification's type of the echoed schema is null.
        shown: dict[str, Any] = {
            "type": asked.type,
            "name": asked.name,
            "description": asked.description,
            "schema": None,
            "strict": bool(asked.strict),
        }
    else:
        shown = {"type": "text" if asked is None else asked.type}
    return {"format": shown, "verbosity": verbosity}
