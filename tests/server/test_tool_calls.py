"""Tool calls of the default model over HTTP, and the turns after them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.requests import Api

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
NOTE = {"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]}
SCHEMAS: dict[str, dict[str, Any]] = {"weather": CITY, "note": NOTE}
ASKED = {"role": "user", "content": "How is the weather in Rome?"}
RESULT = "Sunny, 25 degrees."


def chat_tools(**fields: Any) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": name, "parameters": schema, **fields}}
        for name, schema in SCHEMAS.items()
    ]


def chat(api: Api, messages: list[Any], **fields: Any) -> Any:
    """The status and the answer of a chat completion."""
    body = {"messages": messages, "max_tokens": 120, "temperature": 1, "seed": 3, **fields}
    response = api.post("/v1/chat/completions", {"tools": chat_tools(), **body})
    assert response.status_code == 200, response.text
    return response.json()


def is_right(name: str, arguments: Any) -> bool:
    if name == "note":
        return [*arguments] == ["done"] and isinstance(arguments["done"], bool)
    days = arguments.get("days", 0)
    return (
        name == "weather"
        and arguments["city"] in ("Paris", "Rome")
        and isinstance(days, int)
        and days <= 9
        and {*arguments} <= {"city", "days"}
    )


def joined(chunks: list[Any]) -> dict[str, Any]:
    """The message that the chunks of a stream make up."""
    message: dict[str, Any] = {"content": "", "tool_calls": []}
    for chunk in chunks[:-1]:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                if "id" in call:
                    message["tool_calls"].append({**call, "function": dict(call["function"])})
                else:
                    own = message["tool_calls"][call["index"]]["function"]
                    own["arguments"] += call["function"]["arguments"]
            message["finish_reason"] = choice["finish_reason"] or message.get("finish_reason")
    return message


NAMED = {"type": "function", "function": {"name": "note"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_chat_that_must_call_calls_and_goes_on_in_place(smol: Api, choice: Any) -> None:
    fields = {"tool_choice": choice, "parallel_tool_calls": False}
    first = chat(smol, [ASKED], **fields)
    assert first["choices"][0]["finish_reason"] == "tool_calls"
    message = first["choices"][0]["message"]
    assert not message["content"]
    (call,) = message["tool_calls"]
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    assert name == "note" or choice == "required"
    assert is_right(name, arguments)
    # The result goes on where the call ended.
    result = {"role": "tool", "tool_call_id": call["id"], "content": RESULT}
    second = chat(smol, [ASKED, message, result], tool_choice="none")
    assert second["streamingllm"]["session_id"] == first["streamingllm"]["session_id"]
    usage = second["usage"]
    seen = first["streamingllm"]["seen_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == seen
    assert 0 < usage["prompt_tokens"] - seen < 60
    assert second["choices"][0]["message"]["content"]
    # A stream with the same seed makes the same call.
    body = {"messages": [ASKED], "tools": chat_tools(), "max_tokens": 120, "temperature": 1}
    streamed = joined(
        smol.stream("/v1/chat/completions", {**body, "seed": 3, "stream": True, **fields})
    )
    assert streamed["finish_reason"] == "tool_calls"
    assert [call["function"] for call in streamed["tool_calls"]] == [call["function"]]


def test_a_strict_function_is_called_right_or_not_at_all(smol: Api) -> None:
    for seed in range(3):
        answer = chat(smol, [ASKED], tools=chat_tools(strict=True), seed=seed, max_tokens=60)
        message = answer["choices"][0]["message"]
        assert "<tool_call>" not in (message["content"] or "")
        if answer["choices"][0]["finish_reason"] == "tool_calls":
            for call in message["tool_calls"]:
                function = call["function"]
                assert is_right(function["name"], json.loads(function["arguments"]))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tool_choice": "required", "tools": None}, "tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "fly"}}}, "fly"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "strict": True,
                            "parameters": {"type": "object", "not": {"required": ["a"]}},
                        },
                    }
                ]
            },
            "parameters",
        ),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(
    smol: Api, fields: dict[str, Any], named: str
) -> None:
    body = {"messages": [ASKED], "tools": chat_tools(), "max_tokens": 5, **fields}
    response = smol.post("/v1/chat/completions", body)
    assert response.status_code == 400
    assert named in response.json()["error"]["message"]


ANTHROPIC_TOOLS = [{"name": name, "input_schema": schema} for name, schema in SCHEMAS.items()]
ONE: dict[str, Any] = {"disable_parallel_tool_use": True}


@pytest.mark.parametrize(
    "choice", [{"type": "any", **ONE}, {"type": "tool", "name": "note", **ONE}], ids=["any", "tool"]
)
def test_messages_that_must_call_call_and_go_on_in_place(smol: Api, choice: dict[str, Any]) -> None:
    body = {"model": smol.model, "max_tokens": 120, "temperature": 1.0, "tools": ANTHROPIC_TOOLS}
    asked = {**body, "messages": [ASKED], "tool_choice": choice}
    response = smol.post("/v1/messages", asked)
    assert response.status_code == 200, response.text
    first = response.json()
    assert first["stop_reason"] == "tool_use"
    (used,) = first["content"]
    assert used["type"] == "tool_use"
    assert used["name"] == "note" or choice["type"] == "any"
    assert is_right(used["name"], used["input"])
    result = {"type": "tool_result", "tool_use_id": used["id"], "content": RESULT}
    history = [
        ASKED,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = smol.post("/v1/messages", {**body, "messages": history}).json()
    assert second["streamingllm"]["session_id"] == first["streamingllm"]["session_id"]
    assert second["usage"]["cache_read_input_tokens"] == first["streamingllm"]["seen_tokens"]
    assert 0 < second["usage"]["input_tokens"] < 60
    events = smol.stream("/v1/messages", {**asked, "stream": True})
    (started,) = [e for e in events if e["type"] == "content_block_start"]
    deltas = [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"]
    assert is_right(started["content_block"]["name"], json.loads("".join(deltas)))
    (end,) = [e for e in events if e["type"] == "message_delta"]
    assert end["delta"]["stop_reason"] == "tool_use"
