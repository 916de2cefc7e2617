"""The grammar that a turn's tool choice imposes on the answer."""

from __future__ import annotations

from streamingllm.errors import InputError
from streamingllm.models import LanguageModel
from streamingllm.sessions.answer_parser import call_grammar, functions_of
from streamingllm.sessions.session import Session
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.turn import TurnRequest
from streamingllm.stream.grammar import Grammar


def answer_grammar(
    lm: LanguageModel, session: Session, request: TurnRequest, template: ChatTemplate
) -> Grammar | None:
    """Return the grammar of the answer: the request's own, or the one of calls.

    A call that must be made, and each call if a function is `strict`, follows the schemas.

    Args:
        lm: whose answer it is.
        session: with the tools.
        request: with the choice.
        template: which describes the tools.

    Raises:
        InputError: the choice fits neither the tools nor the rest of the request.
    """
    given, must_call = request.params.grammar, request.tool_mode == "required"
    has_strict = any(f.get("strict") for f in functions_of(session.tools))
    if request.tool_mode == "none" or not (must_call or (has_strict and given is None)):
        return given
    if given is not None:
        raise InputError(
            "tool_choice='required' contradicts a response_format, which the answer would follow "
            "instead; leave out one of them"
        )
    return call_grammar(
        lm,
        session.tools,
        name=request.tool_name if must_call else None,
        parallel=request.parallel_tool_calls,
        variables=session.variables,
        tool_format=template.tool_format,
        end_token_ids=template.end_token_ids,
        must_call=must_call,
    )
