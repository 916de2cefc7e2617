"""Render a chat template piece by piece, so that a stream is fed nothing twice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from streamingllm.errors import UnsupportedFeatureError
from streamingllm.models import LanguageModel
from streamingllm.sessions.control_text import RenderedText, placeholder_for
from streamingllm.sessions.template_input import (
    Messages,
    answer_ending_with,
    as_json,
    as_messages,
    changes_what_was_said,
    shared_beginning,
)
from streamingllm.sessions.template_places import check_place_for_results, has_place_for_tools
from streamingllm.sessions.template_renderer import TemplateRenderer
from streamingllm.sessions.tool_prompt import as_described, as_plain_messages, prompt_with_tools
from streamingllm.sessions.transcript import Message


class ChatTemplate:
    """Put what is said between the marks that a model was trained with.

    The pieces, with the answers between them, equal the whole chat as the template renders it. Some
    templates render old messages in another way than new ones: they drop thoughts, or move the
    system prompt into the last turn. Then the stream keeps what was sent at the time.

    Control tokens in what is said become text, not marks.

    Args:
        lm: a model whose tokenizer has a chat template.
        system_prompt: what the model is told before the first turn; "" for nothing (the template
            may then say something of its own).
        tools: JSON schemas of the functions that the model may call.
        variables: further variables of the template, such as `enable_thinking`.

    Attributes:
        opening: the text before the first turn, up to the end of the system prompt at least. A
            stream that pins it never forgets the prompt.
        end_token_ids: tokens that the template puts after an answer; an answer ends with them as
            with the model's eos tokens.
        tool_format: "template" if the template writes tools, calls and results; "prompt" if it has
            no place for tools, which the system prompt describes then.

    Raises:
        UnsupportedFeatureError: there is no template, or it has no place for a system prompt
            before the first turn.
    """

    def __init__(
        self,
        lm: LanguageModel,
        system_prompt: str = "",
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        if not lm.tokenizer.chat_template:
            raise UnsupportedFeatureError(
                f"{lm.name} has no chat template; chat with a model tuned for it, such as "
                "smollm2-135m-instruct, or use `streamingllm generate`"
            )
        self._lm = lm
        self._tools = tools = [as_described(tool) for tool in tools]
        self._variables = dict(variables or {})
        self._renderer = TemplateRenderer(lm, self._variables)
        self._marks = self._renderer.marks
        self.tool_format: Literal["template", "prompt"] = "template"
        self._system = [Message.of_text("system", system_prompt)] if system_prompt else []
        if tools and not has_place_for_tools(self._renderer, self._system):
            self.tool_format, self._tools = "prompt", []
            self._system = [Message.of_text("system", prompt_with_tools(system_prompt, tools))]
            self._check_place_for_description()
        self._opening = self._find_opening()
        self.opening = str(self._opening)
        self.end_token_ids = self._find_end_tokens()
        self._lead = self._find_lead()

    def first_turn(self, messages: Messages) -> str:
        """Return what follows the opening when these are the first messages, up to the answer."""
        return str(self._first_turn(messages))

    def next_turn(self, messages: Messages, answer: Message | None = None) -> str:
        """Return what follows an answer when these messages are next, up to the next answer.

        It begins with the mark that ends an answer.

        Args:
            messages: that follow.
            answer: which they follow; its text does not matter, the tools that it calls do.
        """
        return str(self._next_turn(messages, answer))

    def opening_ids(self) -> list[int]:
        """Return the token ids of the opening."""
        return self._opening.encode(self._lm, is_first=True)

    def first_turn_ids(self, messages: Messages) -> list[int]:
        """Return the token ids of `first_turn`."""
        return self._first_turn(messages).encode(self._lm, is_first=not self.opening)

    def next_turn_ids(
        self, messages: Messages, answer: Message | None = None, *, last_token_id: int | None = None
    ) -> list[int]:
        """Return the token ids of `next_turn`.

        Args:
            messages: that follow.
            answer: which they follow.
            last_token_id: of the stream; an answer that ended by itself is not closed twice.
        """
        ids = self._next_turn(messages, answer).encode(self._lm, is_first=False)
        return self._once_closed(ids, last_token_id)

    def _once_closed(self, ids: list[int], last_token_id: int | None) -> list[int]:
        """Leave out the mark that ends an answer if the stream has it already."""
        mark = self._first_control_token(ids)
        if mark is None:
            return ids
        is_closed = last_token_id == ids[mark] or last_token_id in self.end_token_ids
        return ids[mark + 1 :] if is_closed else ids

    def answer_lead_ids(self) -> list[int]:
        """Return the ids of the marks, such as a channel, that an answer begins with.

        An answer whose text alone is known is fed with them.
        """
        return self._lead.encode(self._lm, is_first=False)

    def user_turn_ids(
        self, *, is_first: bool, answer: Message | None = None, last_token_id: int | None = None
    ) -> tuple[list[int], list[int]]:
        """Return the token ids before and after what a user says, up to the answer.

        Args:
            is_first: whether it is the first turn.
            answer: which the turn follows.
            last_token_id: of the stream; an answer that ended by itself is not closed twice.
        """
        word = placeholder_for([as_json(message) for message in self._system])
        user = Message.of_text("user", word)
        rendered = self._first_turn([user]) if is_first else self._next_turn([user], answer)
        at = str(rendered).find(word)
        if at < 0:
            raise changes_what_was_said(self._lm.name)
        before = rendered.drop_after(at).encode(self._lm, is_first=is_first and not self.opening)
        after = rendered.drop(at + len(word)).encode(self._lm, is_first=False)
        return (before if is_first else self._once_closed(before, last_token_id)), after

    def _first_turn(self, messages: Messages) -> RenderedText:
        new = self._as_rendered(messages)
        rendered = self._render([*self._system, *new])
        opening = self.opening
        if not str(rendered).startswith(opening):
            # A template that writes the date has begun on another day.
            opening = str(self._find_opening())
        if not str(rendered).startswith(opening):
            raise UnsupportedFeatureError(
                f"the chat template of {self._lm.name} begins differently with these messages; "
                "send one message of the user first"
            )
        return self._checked(rendered.drop(len(opening)), new)

    def _next_turn(self, messages: Messages, answer: Message | None) -> RenderedText:
        new = self._as_rendered(messages)
        is_text = self.tool_format == "prompt"
        calls = () if answer is None or is_text else answer.tool_calls
        word = placeholder_for([as_json(message) for message in (*self._system, *new)])
        past = [*self._system, Message.of_text("user", "Hello"), answer_ending_with(word, calls)]
        after = self._checked(self._after(word, self._render([*past, *new])), new)
        if not calls:
            return after
        # What the answer wrote after its last argument is its own; the mark behind it is not.
        with suppress(UnsupportedFeatureError):
            alone = str(self._after(word, self._render(past, is_answer_next=False)))
            shared = shared_beginning(alone, str(after))
            last = max((shared.rfind(mark) for mark in self._marks.values()), default=-1)
            return after.drop(max(0, last))
        return after

    def _as_rendered(self, messages: Messages) -> list[Message]:
        new = as_messages(messages)
        if self.tool_format == "prompt":
            return as_plain_messages(new)
        if any(m.tool_calls or m.role == "tool" for m in new):
            check_place_for_results(self._renderer, self._system, self._lm.name)
        return new

    def _checked(self, rendered: RenderedText, new: Sequence[Message]) -> RenderedText:
        """Refuse a template that leaves out a message, or renders it at another place."""
        text = str(rendered)
        for message in new:
            words = [] if message.role == "assistant" else re.findall(r"\w+", message.text)
            if words and not any(word in text for word in words):
                raise UnsupportedFeatureError(
                    f"the chat template of {self._lm.name} leaves out a message of "
                    f"role={message.role!r} here; send it as another role"
                )
        return rendered

    def _find_opening(self) -> RenderedText:
        word = placeholder_for([as_json(message) for message in self._system])
        user = Message.of_text("user", word)
        rendered = self._render([*self._system, user])
        before, found, _ = str(rendered).partition(word)
        if not found:
            raise changes_what_was_said(self._lm.name)
        length = len(before.rstrip())
        if self._system:
            self._check_place_of_system_prompt(word, user)
            # A template that shows the system prompt alone leaves the user's mark to the turn.
            with suppress(UnsupportedFeatureError):
                alone = str(self._render(self._system, is_answer_next=False))
                if before.startswith(alone) and self._shows_system_prompt_alone():
                    length = len(alone)
        return rendered.drop_after(length)

    def _check_place_for_description(self) -> None:
        try:
            self._render([*self._system, Message.of_text("user", "Hello")])
        except UnsupportedFeatureError as error:
            raise UnsupportedFeatureError(
                f"tools cannot be described to {self._lm.name}: its chat template has no place for "
                "tools, nor for a system prompt; leave out tools"
            ) from error

    def _check_place_of_system_prompt(self, word: str, user: Message) -> None:
        secret = f"{word}y"
        rendered = str(self._render([Message.of_text("system", secret), user]))
        if not 0 <= rendered.find(secret) < rendered.find(word, rendered.find(secret) + 1):
            raise UnsupportedFeatureError(
                f"the chat template of {self._lm.name} has no place for a system prompt before the "
                "first turn; try an empty system_prompt"
            )

    def _shows_system_prompt_alone(self) -> bool:
        word = placeholder_for("")
        system = [Message.of_text("system", word)]
        return word in str(self._render(system, is_answer_next=False))

    def _find_end_tokens(self) -> frozenset[int]:
        """Learn the token that ends an answer from the last one, or from one that is followed."""
        word = placeholder_for([as_json(message) for message in self._system])
        past = [*self._system, Message.of_text("user", "Hello"), answer_ending_with(word)]
        more = Message.of_text("user", "Hello")
        for messages, is_answer_next in ((past, False), ([*past, more], True)):
            with suppress(UnsupportedFeatureError):
                rendered = self._render(messages, is_answer_next=is_answer_next)
                ids = self._after(word, rendered).encode(self._lm, is_first=False)
                mark = self._first_control_token(ids)
                if mark is not None:
                    return frozenset((ids[mark],))
        return frozenset()

    def _find_lead(self) -> RenderedText:
        """Find what stands between the prompt and an answer that is followed, if it has marks."""
        word = placeholder_for([as_json(message) for message in self._system])
        hello = Message.of_text("user", "Hello")
        past = [*self._system, hello]
        with suppress(UnsupportedFeatureError):
            prompt = str(self._render(past))
            rendered = self._render([*past, answer_ending_with(word), hello])
            before = str(rendered).partition(word)[0]
            lead = before.removeprefix(prompt)
            if before.startswith(prompt) and any(mark in lead for mark in self._marks.values()):
                return rendered.drop_after(len(before)).drop(len(prompt))
        return RenderedText(())

    def _first_control_token(self, ids: Sequence[int]) -> int | None:
        """Return where the first control token is, if only spaces come before it."""
        for at, token_id in enumerate(ids):
            if token_id in self._marks:
                return at
            if str(self._lm.tokenizer.decode([token_id])).strip():
                return None
        return None

    def _after(self, word: str, rendered: RenderedText) -> RenderedText:
        text = str(rendered)
        if word not in text:
            raise changes_what_was_said(self._lm.name)
        return rendered.drop(text.rfind(word) + len(word))

    def _render(self, messages: Sequence[Message], *, is_answer_next: bool = True) -> RenderedText:
        return self._renderer.render(messages, self._tools, is_answer_next=is_answer_next)
