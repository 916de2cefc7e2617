"""Tools of the default model, whose chat template has no place for them."""

from __future__ import annotations

import json

from streamingllm import LanguageModel
from streamingllm.sessions import ChatTemplate, ContentPart, Message, ToolCall
from streamingllm.sessions.answer_parser import CallArguments, CallEnded, CallStarted, parser_for
from streamingllm.sessions.tool_prompt import as_plain_messages

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = ToolCall("call_1", "add", '{"a": 1}')


def test_a_call_of_the_history_is_parsed_back(default_model: LanguageModel) -> None:
    chat = ChatTemplate(default_model, "Be kind.", tools=[TOOL])
    assert chat.tool_format == "prompt"
    assert json.dumps(TOOL) in chat.opening
    (written,) = as_plain_messages([Message("assistant", tool_calls=(CALL,))])
    parser = parser_for(default_model, [TOOL])
    assert [*parser.feed(written.text), *parser.finish()] == [
        CallStarted(0, "add"),
        CallArguments(0, CALL.arguments),
        CallEnded(0),
    ]


def test_results_become_messages_of_the_user(default_model: LanguageModel) -> None:
    chat = ChatTemplate(default_model, tools=[TOOL])
    result = Message("tool", (ContentPart("42"),), tool_call_id="call_1")
    answer = Message("assistant", tool_calls=(CALL,))
    assert chat.next_turn([result], answer) == (
        "<|im_end|>\n<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_messages_without_calls_stay_as_they_are() -> None:
    messages = [Message.of_text("user", "Hi"), Message.of_text("assistant", "Hello.")]
    assert as_plain_messages(messages) == messages
