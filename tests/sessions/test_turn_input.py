"""Histories are fed as they would have been fed message by message."""

from __future__ import annotations

from streamingllm import LanguageModel
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn_input import TurnEncoder, TurnInput


def said(*texts: str) -> list[Message]:
    roles = {"u": "user", "a": "assistant", "t": "tool"}
    return [Message.of_text(roles[text[0]], text) for text in texts]


def encoded(lm: LanguageModel, *texts: str) -> tuple[TurnInput, int]:
    template = ChatTemplate(lm, "Be kind.")
    opening = template.opening_ids()
    encoder = TurnEncoder(
        lm, template, past=False, answer=None, last_token_id=opening[-1], first=len(opening)
    )
    return encoder.encode(said(*texts)), len(opening)


def test_a_history_equals_the_template_and_each_message_has_its_place(
    tiny_chat: LanguageModel,
) -> None:
    told, opening = encoded(tiny_chat, "u1", "a1", "u2", "a2", "u3")
    assert tiny_chat.tokenizer.decode(list(told.ids)) == "u:u1~a:a1~u:u2~a:a2~u:u3~a:"
    places = [(message.first - opening, message.stop - opening) for message in told.messages]
    assert places == [(0, 7), (7, 9), (9, 17), (17, 19), (19, 27)]
    assert [message.begins_turn for message in told.messages] == [True, False, True, False, True]
    assert told.answer_first == opening + 27


def test_an_answer_at_the_end_goes_on(tiny_chat: LanguageModel) -> None:
    told, opening = encoded(tiny_chat, "u1", "a1")
    assert tiny_chat.tokenizer.decode(list(told.ids)) == "u:u1~a:a1"
    assert (told.prefill, told.answer_first - opening) == ("a1", 7)


def test_a_history_may_begin_with_an_answer(default_model: LanguageModel) -> None:
    template = ChatTemplate(default_model)
    encoder = TurnEncoder(
        default_model, template, past=False, answer=None, last_token_id=None, first=0
    )
    told = encoder.encode(said("a1", "a2", "u1"))
    text = f"{template.opening}{default_model.tokenizer.decode(list(told.ids))}"
    places = [text.index(f"{found}<|im_end|>") for found in ("a1", "a2", "user\nu1")]
    assert places == sorted(places)
    assert text.endswith("<|im_start|>assistant\n")
