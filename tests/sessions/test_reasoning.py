"""A window that a chain of thought may outgrow is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from streamingllm import LanguageModel, load_model
from streamingllm.sessions.reasoning import ROOM_TOKENS, can_reason, window_warning
from tests.reference.tiny_chat import TEMPLATE, write_tiny_chat


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("chat")))


@pytest.fixture
def thinking(plain: LanguageModel, tmp_path: Path) -> LanguageModel:
    lm = load_model(write_tiny_chat(tmp_path))
    lm.tokenizer.chat_template = TEMPLATE + "{% if enable_thinking %}<think>{% endif %}"
    return replace(plain, tokenizer=lm.tokenizer)


def test_only_a_model_that_reasons_is_warned_of(
    plain: LanguageModel, thinking: LanguageModel
) -> None:
    assert can_reason(thinking)
    assert not can_reason(plain)
    assert window_warning(plain, 64) == ""
    assert window_warning(thinking, ROOM_TOKENS) == ""
    assert window_warning(thinking, 1024).startswith("cache_size=1024 may be shorter than a chain")
