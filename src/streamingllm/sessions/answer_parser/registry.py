"""Choose the parser of a model's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from streamingllm.models import LanguageModel
from streamingllm.sessions.answer_parser.base import AnswerParser
from streamingllm.sessions.answer_parser.call_format import (
    CallFormat,
    MarkedParser,
    ReasoningMarks,
    Schemas,
)
from streamingllm.sessions.answer_parser.deepseek import DeepSeekFormat
from streamingllm.sessions.answer_parser.gemma import GemmaFormat
from streamingllm.sessions.answer_parser.harmony import (
    AFTER_ANALYSIS,
    ANALYSIS,
    HarmonyFormat,
)
from streamingllm.sessions.answer_parser.hermes import HermesFormat
from streamingllm.sessions.answer_parser.llama import LlamaFormat
from streamingllm.sessions.answer_parser.mistral import MistralFormat
from streamingllm.sessions.answer_parser.phi import PhiFormat
from streamingllm.sessions.answer_parser.plain import PlainParser
from streamingllm.sessions.answer_parser.qwen_coder import QwenCoderFormat

_HERMES, _HARMONY = HermesFormat(), HarmonyFormat()
# Qwen3-Coder's template writes the marks of Hermes too, so it comes first.
_FORMATS: tuple[CallFormat, ...] = (
    QwenCoderFormat(),
    _HERMES,
    _HARMONY,
    DeepSeekFormat(),
    MistralFormat(),
    LlamaFormat(),
    PhiFormat(),
    GemmaFormat(),
)
_REASONING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
_RENDER_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)


def parser_for(
    lm: LanguageModel | None,
    tools: Sequence[Mapping[str, Any]],
    *,
    variables: Mapping[str, Any] | None = None,
) -> AnswerParser:
    """Return a parser for one answer.

    Args:
        lm: whose answer it is; None for raw text.
        tools: functions that the answer may call.
        variables: further variables of the chat template, such as `enable_thinking`.
    """
    template = "" if lm is None else str(lm.tokenizer.chat_template or "")
    if lm is None or not template:
        return PlainParser()
    formats, reason = formats_of(template)
    reasoning = None
    if _HARMONY not in formats:  # which reads reasoning and text as well
        formats, reason = (formats, reason) if tools else ([], "there are no tools")
        reasoning = reasoning_of(lm, template, variables or {})
    if not formats and reasoning is None:
        return PlainParser()
    marks = [mark for f in formats for mark in (*f.marks, *f.other_marks)]
    if reasoning is not None:
        marks += [reasoning.opening, reasoning.closing]
    return MarkedParser(
        formats,
        schemas_of(tools),
        reasoning,
        reason,
        shown_token_ids=_special_ids(lm, marks),
        stop_token_ids=_special_ids(lm, [mark for f in formats for mark in f.stop_marks]),
    )


def schemas_of(tools: Sequence[Mapping[str, Any]]) -> Schemas:
    """Return the JSON schema of each function's arguments, by the function's name."""
    return {str(f.get("name")): f.get("parameters") or {} for f in functions_of(tools)}


def functions_of(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the functions that tools are."""
    return [tool.get("function", tool) for tool in tools]


def formats_of(template: str) -> tuple[list[CallFormat], str]:
    """Return the formats that answers are read in, and why; the last one reads Hermes' form."""
    for call_format in _FORMATS:
        if reason := call_format.reason(template):
            # A template without a place for tools gets them described in the Hermes form.
            others = (
                []
                if isinstance(call_format, QwenCoderFormat | HermesFormat | HarmonyFormat)
                else [_HERMES]
            )
            return [call_format, *others], reason
    return [_HERMES], "the chat template has no marks for calls"


def reasoning_of(
    lm: LanguageModel, template: str, variables: Mapping[str, Any]
) -> ReasoningMarks | None:
    """Return the marks around reasoning; None if the model has none."""
    if _HARMONY.reason(template):
        return ReasoningMarks(ANALYSIS, AFTER_ANALYSIS)
    added = {token.content for token in lm.tokenizer.added_tokens_decoder.values()}
    for opening, closing in _REASONING:
        if closing in template or opening in added:
            end = _prompt_end(lm, variables).rstrip()
            return ReasoningMarks(
                opening, closing, is_open=end.endswith(opening), is_closed=end.endswith(closing)
            )
    return None


def _prompt_end(lm: LanguageModel, variables: Mapping[str, Any]) -> str:
    try:
        rendered = lm.tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hello"}],
            tokenize=False,
            add_generation_prompt=True,
            **variables,
        )
    except _RENDER_ERRORS:
        return ""
    return str(rendered)


def _special_ids(lm: LanguageModel, marks: Sequence[str]) -> frozenset[int]:
    added = lm.tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.special and token.content in marks)
