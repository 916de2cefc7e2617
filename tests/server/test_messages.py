"""Messages of the APIs become messages of a transcript."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from streamingllm.server.anthropic_messages import anthropic_messages, anthropic_system_prompt
from streamingllm.server.messages import (
    arguments_object,
    chat_messages,
    chat_tools,
    split_system_prompt,
    system_prompt_of,
)
from streamingllm.server.schemas.anthropic import CountTokensRequest
from streamingllm.server.schemas.chat import ChatRequest
from streamingllm.sessions.transcript import Message

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def chat(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": list(messages), **fields})


def said(messages: Any) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


def test_leading_system_and_developer_messages_are_the_system_prompt() -> None:
    body = chat(
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Later."},
    )
    prompt, rest = split_system_prompt(chat_messages(body.messages))
    assert prompt == "One.\n\nTwo."
    assert said(rest) == [("user", "Hi"), ("system", "Later.")]


def test_without_a_system_message_the_prompt_is_left_as_it_is() -> None:
    prompt, rest = split_system_prompt([Message.of_text("user", "Hi")])
    assert prompt is None
    assert len(rest) == 1


def test_billing_lines_are_no_part_of_a_system_prompt() -> None:
    first = ["x-anthropic-billing-header: cch=1a2b; v=2", "Be kind."]
    second = ["x-anthropic-billing-header: cch=ffff; v=2", "Be kind."]
    assert system_prompt_of(first) == system_prompt_of(second) == "Be kind."
    assert system_prompt_of(["x-anthropic-billing-header: cch=1;\nBe kind."]) == "Be kind."


def test_calls_and_results_keep_their_ids() -> None:
    body = chat(
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    )
    call, result = chat_messages(body.messages)
    assert (call.text, call.tool_calls[0].id, call.tool_calls[0].name) == ("", "c1", "f")
    assert (result.role, result.text, result.tool_call_id) == ("tool", "42", "c1")


def test_an_answer_comes_back_as_it_was_given() -> None:
    """Clients send reasoning, annotations and empty fields of an answer back."""
    body = chat(
        {
            "role": "assistant",
            "content": "Yes.",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
            "tool_calls": None,
            "reasoning_content": "Hmm",
        }
    )
    (message,) = chat_messages(body.messages)
    assert message.is_same_as_sent(Message.of_text("assistant", "Yes."))


def test_tools_are_given_to_templates_without_what_they_do_not_know() -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {}}}
    body = chat({"role": "user", "content": "Hi"}, tools=[tool])
    assert chat_tools(body.tools) == (
        {
            "type": "function",
            "function": {
                "name": "f",
                "strict": True,  # the template's wrapper leaves it out
                "parameters": {"type": "object", "properties": {}},
            },
        },
    )
    assert chat_tools(None) is None


@pytest.mark.parametrize(
    ("arguments", "found"),
    [('{"a": 1}', {"a": 1}), ("", {}), ("[1]", {"arguments": [1]}), ("{", {"arguments": "{"})],
)
def test_arguments_are_always_an_object_for_anthropic(
    arguments: str, found: dict[str, Any]
) -> None:
    assert arguments_object(arguments) == found


def anthropic(*messages: dict[str, Any], **fields: Any) -> CountTokensRequest:
    return CountTokensRequest.model_validate({"model": "m", "messages": list(messages), **fields})


def test_blocks_become_messages() -> None:
    result = [{"type": "text", "text": "no such city"}]
    body = anthropic(
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hmm", "signature": "s"},
                {"type": "text", "text": "I "},
                {"type": "text", "text": "look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": result, "is_error": True},
                {"type": "text", "text": "Well?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    )
    messages = anthropic_messages(body.messages)
    assert said(messages) == [
        ("user", "Weather?"),
        ("assistant", "I look."),
        ("tool", "Error: no such city"),
        ("user", "Well?"),
    ]
    assert json.loads(messages[1].tool_calls[0].arguments) == {"city": "Paris"}
    assert messages[2].tool_call_id == "t1"


def test_anthropics_system_prompt_is_a_text_or_blocks() -> None:
    user = {"role": "user", "content": "Hi"}
    blocks = [
        {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
        {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
    ]
    assert anthropic_system_prompt(anthropic(user, system=blocks)) == "Be kind."
    assert anthropic_system_prompt(anthropic(user, system="Be kind.")) == "Be kind."
    assert anthropic_system_prompt(anthropic(user)) is None


REFUSED: dict[str, dict[str, Any]] = {
    "frobnicate": {"frobnicate": 1},
    "image_url": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]
    },
    "functions": {"functions": [{"name": "f"}]},
    "top_logprobs": {"top_logprobs": 3},
    "stream_options": {"stream_options": {"include_usage": True}},
    "max_tokens": {"max_tokens": 1, "max_completion_tokens": 2},
    "temperature": {"temperature": float("nan")},
    "user": {"user": "\ud800"},
    "tool_choice": {"tool_choice": "required"},
    "metadata": {"metadata": {"a": 1}},
    "nested": {"chat_template_kwargs": {"a": json.loads("[" * 100 + "]" * 100)}},
    "service_tier": {"service_tier": "priority"},
    "json_schema": {"response_format": {"type": "json_schema"}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_named(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        ChatRequest.model_validate(
            {"messages": [{"role": "user", "content": "Hi"}], **REFUSED[name]}
        )


def test_empty_fields_that_are_not_supported_are_no_error() -> None:
    chat({"role": "user", "content": "Hi", "audio": None}, functions=[], audio=None, prediction={})
