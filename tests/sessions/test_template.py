from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.sessions import ChatTemplate, Message, ToolCall
from tests.reference.tiny_folder import byte_tokenizer

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = (
    "<bos>{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FOLDED = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content ~ ' ' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% if not messages %}{{ raise_exception('nobody speaks') }}{% endif %}<s>"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ system if loop.first }}"
    "{{ m.content }} [/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)


@pytest.fixture
def lm(tiny_chat: LanguageModel) -> LanguageModel:
    """The tiny model with a tokenizer whose chat template a test may set."""
    return replace(tiny_chat, tokenizer=byte_tokenizer())


@pytest.mark.parametrize(
    ("template", "system", "opening"),
    [
        (CHATML, "Be kind.", "<|system|>Be kind.</s>"),
        (CHATML, "", "<|user|>"),
        (NO_SYSTEM, "", "<bos><user>"),
        (FOLDED, "Be kind.", "<s>[INST] Be kind."),
        (FOLDED, "", "<s>[INST]"),
    ],
)
def test_pieces_make_up_the_whole(
    template: str, system: str, opening: str, lm: LanguageModel
) -> None:
    lm.tokenizer.chat_template = template
    chat = ChatTemplate(lm, system)
    assert chat.opening == opening
    messages = [{"role": "system", "content": system}] if system else []
    pieces = chat.opening
    for turn, text in enumerate(("How are you?", "And now?", "streamingllm", "Bye")):
        pieces += chat.next_turn(text) if turn else chat.first_turn(text)
        messages.append({"role": "user", "content": text})
        tokenizer: Any = lm.tokenizer
        whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert pieces == whole
        messages.append({"role": "assistant", "content": "Fine."})
        pieces += "Fine."


FOLDED_SILENTLY = FOLDED.replace("raise_exception('nobody speaks')", "bos_token")
LAST = FOLDED_SILENTLY.replace("loop.first", "loop.last")
BEHIND = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}"
    "{{ ' ' ~ system if system and loop.first }}{% endfor %}<assistant>"
)


@pytest.mark.parametrize("template", [FOLDED, FOLDED_SILENTLY, LAST])
def test_a_folded_system_prompt_is_part_of_the_opening(template: str, lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = template
    assert ChatTemplate(lm, "Be kind.").opening == "<s>[INST] Be kind."


@pytest.mark.parametrize("template", [BEHIND, BEHIND.replace("loop.first", "false")])
def test_a_system_prompt_without_a_place_is_refused(template: str, lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = template
    with pytest.raises(UnsupportedFeatureError, match="try an empty system_prompt"):
        ChatTemplate(lm, "Be kind.")


def test_a_template_may_write_the_date(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = "{{ day }}." + CHATML
    chat = ChatTemplate(lm, "Be kind.", variables={"day": "Monday"})
    assert chat.opening.startswith("Monday")
    chat._variables["day"] = "Tuesday"
    assert chat.first_turn("Hi") == "<|user|>Hi</s><|assistant|>"


@pytest.mark.parametrize(
    "word", ["streamingllmplaceholder0x", "streamingllm-placeholder", "\ue000"]
)
def test_no_word_of_ours_is_in_the_way(word: str, lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = CHATML
    chat = ChatTemplate(lm, f"the word {word} is a secret")
    assert chat.opening == f"<|system|>the word {word} is a secret</s>"
    assert chat.next_turn(f"Is it {word}?") == f"</s><|user|>Is it {word}?</s><|assistant|>"


@pytest.mark.parametrize("role", ["user|>", "", "a b", "<|im_start|>"])
def test_a_role_is_a_word(role: str, default_model: LanguageModel) -> None:
    with pytest.raises(InputError, match="is no role"):
        ChatTemplate(default_model).first_turn([Message.of_text(role, "Hi")])


def test_arguments_are_json(default_model: LanguageModel) -> None:
    call = ToolCall("1", "add", "{")
    with pytest.raises(InputError, match="are no JSON"):
        ChatTemplate(default_model).first_turn([Message("assistant", tool_calls=(call,))])


def test_ids_of_the_pieces_are_those_of_the_whole(default_model: LanguageModel) -> None:
    chat = ChatTemplate(default_model, "Be kind. <|im_end|>")
    said = ("def f(x):\n    return x", " 日本語 ", "What is 2 + 2?")
    ids, text = chat.opening_ids(), chat.opening
    for turn, question in enumerate(said):
        answer = "" if turn == 0 else "Fine, thank you."
        ids += default_model.encode(answer, add_special_tokens=False).tolist()
        ids += chat.next_turn_ids(question) if turn else chat.first_turn_ids(question)
        text += answer + (chat.next_turn(question) if turn else chat.first_turn(question))
    parts = text.split("<|im_end|>", 1)  # the first one was said, the others are marks
    expected = [
        *default_model.encode(parts[0], add_special_tokens=False).tolist(),
        *default_model.encode(
            "<|im_end|>", add_special_tokens=False, parse_control_tokens=False
        ).tolist(),
        *default_model.encode(parts[1], add_special_tokens=False).tolist(),
    ]
    assert ids == expected


def test_the_default_model(default_model: LanguageModel) -> None:
    chat = ChatTemplate(default_model, "Be kind.")
    assert chat.opening == "<|im_start|>system\nBe kind.<|im_end|>\n"
    assert chat.first_turn("Hi") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.next_turn("Hi") == "<|im_end|>\n" + chat.first_turn("Hi")


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (None, "", "has no chat template"),
        (NO_SYSTEM, "Be kind.", r"\(no system role\); try an empty system_prompt"),
        ("{{ messages | length }}", "", "changes what was said"),
    ],
)
def test_templates_that_cannot_chat_in_a_stream(
    template: str | None, system: str, message: str, lm: LanguageModel
) -> None:
    lm.tokenizer.chat_template = template
    with pytest.raises(UnsupportedFeatureError, match=message):
        ChatTemplate(lm, system)
