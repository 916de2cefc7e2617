"""Choose the parser of a model's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamingllm.models import LanguageModel
from streamingllm.sessions.answer_parser.base import AnswerParser
from streamingllm.sessions.answer_parser.plain import PlainParser


def parser_for(lm: LanguageModel | None, tools: Sequence[Mapping[str, Any]]) -> AnswerParser:
    """Return a parser for one answer.

    Args:
        lm: whose answer it is; None for raw text.
        tools: functions that the answer may call.
    """
    del lm, tools
    return PlainParser()
