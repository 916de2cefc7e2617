from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.sessions import ChatTemplate
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
        (FOLDED, "Be kind.", "<s>[INST] Be kind. "),
        (FOLDED, "", "<s>[INST] "),
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
