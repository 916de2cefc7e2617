"""Parameters of a turn: what a request, a template and a parser ask of the engine together."""

from __future__ import annotations

from dataclasses import replace

from streamingllm.engine import AsyncEngine
from streamingllm.errors import ContextLengthError, InputError
from streamingllm.models import LanguageModel
from streamingllm.sessions.answer import Answer
from streamingllm.sessions.answer_parser import parser_for
from streamingllm.sessions.memory_tool import SEARCH_MEMORY, may_search
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.tool_choice import answer_grammar
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import TurnRequest
from streamingllm.sessions.turn_attempt import new_id
from streamingllm.sessions.turn_input import TurnInput
from streamingllm.stream.sampling import SamplingParams


class TurnParams:
    """Work out how a turn is generated, and refuse what no turn can begin with.

    Args:
        engine: checks sampling parameters.
        lm: its model and tokenizer.
        templates: of sessions.
        settings: longest message.
        cache_size: tokens that a stream can see.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        lm: LanguageModel,
        templates: TemplateCache,
        settings: SessionSettings,
        cache_size: int,
    ) -> None:
        self._engine = engine
        self._lm = lm
        self._templates = templates
        self._settings = settings
        self._cache_size = cache_size

    async def check(self, request: TurnRequest, new: tuple[Message, ...]) -> None:
        """Refuse what no turn can begin with.

        Raises:
            InputError: a message is too long, or a sampling parameter is out of range.
        """
        self._check_lengths(new)
        await self._engine.check(request.params)

    async def of(self, session: Session, request: TurnRequest, told: TurnInput) -> SamplingParams:
        """Return the sampling parameters of a turn.

        Raises:
            ContextLengthError: `truncation="disabled"`, and the request does not fit.
            InputError: there is no message, or no call can follow the schema of a tool.
        """
        template = await self._templates.template(session)
        parser = parser_for(self._lm, session.tools, variables=session.variables)
        params = replace(
            request.params,
            stop_token_ids={
                *request.params.stop_token_ids,
                *template.end_token_ids,
                *parser.stop_token_ids,
            },
            shown_token_ids=parser.shown_token_ids,
            grammar=answer_grammar(self._lm, session, request, template),
        )
        if params.grammar is not request.params.grammar:
            try:
                await self._engine.check(params)
            except InputError as error:
                raise InputError(
                    f"tools have parameters that calls cannot be made to follow ({error}); "
                    "simplify their JSON schemas"
                ) from error
        if not told.ids and not len(session.token_log):
            raise InputError("messages is empty; send at least one message")
        if request.truncation == "disabled":
            return self._bounded(session, params, len(told.ids))
        return params

    def answers(
        self, session: Session, request: TurnRequest, prefill: str, num_samples: int
    ) -> list[Answer]:
        """Return an empty answer for each sample, with the parser of its tools."""
        tools = () if request.tool_mode == "none" else session.tools
        return [
            Answer(
                sample,
                parser_for(self._lm, tools, variables=session.variables),
                new_id("msg_", purpose="answer"),
                prefill,
                hidden=SEARCH_MEMORY if may_search(session.tools) else "",
            )
            for sample in range(num_samples)
        ]

    def going_on(
        self, session: Session, request: TurnRequest, params: SamplingParams, answer: Answer
    ) -> tuple[SamplingParams, Answer]:
        """Return what an answer goes on with after it has searched the memory."""
        parser = parser_for(self._lm, session.tools, variables=session.variables)
        most = params.max_new_tokens
        left = None if most is None else max(1, most - answer.num_tokens)
        grammar = params.grammar
        if request.tool_name == SEARCH_MEMORY:  # the call that had to be made
            grammar = request.params.grammar
        return replace(params, max_new_tokens=left, grammar=grammar), answer.going_on(parser)

    def _bounded(self, session: Session, params: SamplingParams, num_new: int) -> SamplingParams:
        """Refuse a request that does not fit; end the answer before it would no longer."""
        total = len(session.token_log) + num_new
        room = self._cache_size - total
        if room < 1 or session.num_forgotten_tokens:
            raise ContextLengthError(
                f"truncation='disabled': the request of {total} tokens exceeds the context size of "
                f"{self._cache_size} tokens; shorten it or send truncation='auto'"
            )
        most = params.max_new_tokens
        return replace(params, max_new_tokens=room if most is None else min(most, room))

    def _check_lengths(self, messages: tuple[Message, ...]) -> None:
        most = self._settings.max_message_characters
        for number, message in enumerate(messages):
            if len(message.text) > most:
                raise InputError(
                    f"messages[{number}] has {len(message.text)} characters, more than "
                    f"max_message_characters={most}; send it in parts"
                )
