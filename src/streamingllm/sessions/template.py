"""A chat template, rendered piece by piece: a stream reads nothing twice."""

from __future__ import annotations

from contextlib import suppress

from jinja2 import TemplateError

from streamingllm.errors import UnsupportedFeatureError
from streamingllm.models import LanguageModel

_PLACEHOLDER = "streamingllm-placeholder"


class ChatTemplate:
    """Put what is said between the marks that a model was trained with.

    Args:
        lm: a model whose tokenizer has a chat template.
        system_prompt: what the model is told before the first turn; "" for nothing (the template
            may then say something of its own).

    Attributes:
        opening: the text before the first turn.

    Raises:
        UnsupportedFeatureError: there is no template, or it has no place for a system prompt.
    """

    def __init__(self, lm: LanguageModel, system_prompt: str = "") -> None:
        self._tokenizer = lm.tokenizer
        self._name = lm.name
        self._system = [_message("system", system_prompt)] if system_prompt else []
        if not lm.tokenizer.chat_template:
            raise UnsupportedFeatureError(
                f"{lm.name} has no chat template: chat with a model tuned for it, such as "
                "smollm2-135m-instruct, or use `streamingllm generate`"
            )
        self.opening = self._find_opening()

    def first_turn(self, text: str) -> str:
        """Return what follows the opening when the user says `text`, up to the answer."""
        return self._render([*self._system, _message("user", text)])[len(self.opening) :]

    def next_turn(self, text: str) -> str:
        """Return what follows an answer when the user says `text`, up to the next answer.

        It begins with the mark that ends an answer.
        """
        past = [_message("user", "Hello"), _message("assistant", _PLACEHOLDER)]
        rendered = self._render([*self._system, *past, _message("user", text)])
        _, after = self._around_placeholder(rendered)
        return after

    def _find_opening(self) -> str:
        rendered = self._render([*self._system, _message("user", _PLACEHOLDER)])
        before_user, _ = self._around_placeholder(rendered)
        if self._system:
            # A template that shows the system prompt alone leaves the user's mark to the turn.
            with suppress(UnsupportedFeatureError):
                alone = self._render(self._system, is_answer_next=False)
                if before_user.startswith(alone):
                    return alone
        return before_user

    def _around_placeholder(self, rendered: str) -> tuple[str, str]:
        before, found, after = rendered.partition(_PLACEHOLDER)
        if not found:
            raise UnsupportedFeatureError(
                f"{self._name} cannot chat in a stream: its chat template changes what was said"
            )
        return before, after

    def _render(self, messages: list[dict[str, str]], *, is_answer_next: bool = True) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=is_answer_next
            )
        except TemplateError as error:
            advice = "; try an empty system_prompt" if self._system else ""
            raise UnsupportedFeatureError(
                f"the chat template of {self._name} refuses the conversation ({error}){advice}"
            ) from error
        assert isinstance(rendered, str)
        return rendered


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
