"""The choice of a parser for real templates, and calls that these templates render."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.sessions.answer_parser import parser_for
from streamingllm.sessions.answer_parser.call_format import MarkedParser
from tests.reference.tiny_lm import tiny_lm
from tests.sessions.answer_parser.test_formats import joined
from tests.sessions.families import FAMILIES
from tests.sessions.test_families import TOOL

BY_NAME = {family.name: family for family in FAMILIES}
ARGUMENTS = {"a": 1.5, "b": 'say "}" \\ <b>\n'}
WITH_CALLS = {
    "llama-3.1": "llama",
    "llama-3.2": "llama",
    "qwen-2.5": "hermes",
    "qwen-3": "hermes",
    "qwen-3-instruct-2507": "hermes",
    "mistral-v3": "mistral",
    "mistral-nemo": "mistral",
    "mistral-small-3.2": "mistral",
    "deepseek-v3": "deepseek",
    "deepseek-v3.1": "deepseek",
    "deepseek-r1-distill": "deepseek",
}


def rendered_call(lm: LanguageModel, *, as_object: bool) -> str:
    """What the template writes of an assistant's call, without the mark that ends it."""
    tokenizer: Any = lm.tokenizer
    arguments: Any = ARGUMENTS if as_object else json.dumps(ARGUMENTS)
    function = {"name": "add", "arguments": arguments}
    call = {"id": "abcdefghi", "type": "function", "function": function}
    user = {"role": "user", "content": "Add."}
    before = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=False)
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    whole = tokenizer.apply_chat_template([user, asked], tokenize=False)
    assert isinstance(whole, str)
    assert whole.startswith(before)
    return whole.removeprefix(before)


@pytest.mark.parametrize(("name", "format_name"), WITH_CALLS.items())
def test_a_call_that_the_template_renders_is_parsed_back(name: str, format_name: str) -> None:
    family = BY_NAME[name]
    lm = family.lm(tiny_lm())
    text = rendered_call(lm, as_object=name != "deepseek-v3")
    for lead in ("<|im_start|>assistant\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"):
        text = text.removeprefix(lead)
    text = text.removeprefix("<｜Assistant｜>").partition(family.end)[0]
    parser = parser_for(lm, [TOOL], variables={"enable_thinking": False})
    assert isinstance(parser, MarkedParser)
    assert parser.format_name == format_name
    assert "the chat template writes" in parser.reason
    if name == "deepseek-v3":  # its prompt always ends with "<think>"
        text = f"</think>{text}"
    found, _, calls = joined([*parser.feed(text), *parser.finish()])
    assert found == ""
    assert [(call, json.loads(arguments)) for call, arguments, _ in calls] == [("add", ARGUMENTS)]


def test_reasoning_that_the_prompt_opens() -> None:
    lm = BY_NAME["deepseek-v3"].lm(tiny_lm())
    parser = parser_for(lm, [])
    parts = [*parser.feed("Why?\n</think>\n\nBecause."), *parser.finish()]
    assert joined(parts)[:2] == ("Because.", "Why?")


def test_marks_that_are_special_tokens_are_shown() -> None:
    lm = BY_NAME["mistral-small-3.2"].lm(tiny_lm())
    shown = parser_for(lm, [TOOL]).shown_token_ids
    assert {lm.tokenizer.decode([i]) for i in shown} == {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}
    assert not parser_for(lm, []).shown_token_ids


def test_raw_text_and_models_without_marks_are_text() -> None:
    lm = BY_NAME["llama-3"].lm(tiny_lm())
    for parser in (parser_for(None, ()), parser_for(lm, [])):
        assert joined([*parser.feed("<tool_call><think>"), *parser.finish()])[0].endswith("nk>")
