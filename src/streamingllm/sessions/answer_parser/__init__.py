"""Split an answer into text, reasoning and tool calls while it is generated."""

from __future__ import annotations

from streamingllm.sessions.answer_parser.base import AnswerParser as AnswerParser
from streamingllm.sessions.answer_parser.base import AnswerPart as AnswerPart
from streamingllm.sessions.answer_parser.base import CallArguments as CallArguments
from streamingllm.sessions.answer_parser.base import CallEnded as CallEnded
from streamingllm.sessions.answer_parser.base import CallStarted as CallStarted
from streamingllm.sessions.answer_parser.base import Reasoning as Reasoning
from streamingllm.sessions.answer_parser.base import Text as Text
from streamingllm.sessions.answer_parser.call_grammar import call_grammar as call_grammar
from streamingllm.sessions.answer_parser.registry import functions_of as functions_of
from streamingllm.sessions.answer_parser.registry import parser_for as parser_for
