"""Run a chat template over messages, with the control tokens in them kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.models import LanguageModel
from streamingllm.sessions.control_text import ControlText, RenderedText
from streamingllm.sessions.template_input import as_json
from streamingllm.sessions.transcript import Message

_RENDER_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)


class TemplateRenderer:
    """Render messages by a model's chat template.

    Args:
        lm: with the tokenizer that has the template.
        variables: further variables of the template.

    Attributes:
        marks: texts of the special tokens, by id.
    """

    def __init__(self, lm: LanguageModel, variables: Mapping[str, Any]) -> None:
        self._lm = lm
        self._variables = variables
        added = lm.tokenizer.added_tokens_decoder
        special_ids = {*lm.tokenizer.all_special_ids, *(i for i in added if added[i].special)}
        self.marks = {i: added[i].content for i in added if i in special_ids}
        self._control = ControlText(
            str(lm.tokenizer.chat_template),
            {token.content: i in special_ids for i, token in added.items()},
        )

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        *,
        is_answer_next: bool,
    ) -> RenderedText:
        """Return the chat as the template writes it.

        Args:
            messages: of the chat.
            tools: JSON schemas of functions.
            is_answer_next: whether the mark that opens an answer comes last.

        Raises:
            UnsupportedFeatureError: the template refuses the messages.
        """

        def render(data: Mapping[str, Any]) -> str:
            rendered = self._lm.tokenizer.apply_chat_template(
                data["messages"],
                tools=data["tools"] or None,
                tokenize=False,
                add_generation_prompt=is_answer_next,
                **data["variables"],
            )
            assert isinstance(rendered, str)
            return rendered

        error: Exception | None = None
        # Templates differ in whether the arguments of a call are an object or its JSON.
        for as_object in (True, False):
            data = {
                "messages": [as_json(message, as_object) for message in messages],
                "tools": tools,
                "variables": self._variables,
            }
            try:
                return self._control.render(render, data)
            except InputError:
                raise
            except _RENDER_ERRORS as raised:
                error = error or raised
            if not any(message.tool_calls for message in messages):
                break
        has_system = any(message.role == "system" for message in messages)
        advice = "try an empty system_prompt" if has_system else "send other messages"
        reason = " ".join(str(error).split())
        raise UnsupportedFeatureError(
            f"the chat template of {self._lm.name} refuses the conversation ({reason}); {advice}"
        ) from error
