"""Texts without a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm import LanguageModel
from streamingllm.finish_reason import FinishReason
from streamingllm.sessions.session_types import TextRequest
from streamingllm.sessions.turn import SampleEnded
from streamingllm.stream.sampling import SamplingParams
from tests.sessions.managers import managing

pytestmark = pytest.mark.anyio


async def test_a_text_ends_in_time(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with managing(tiny_chat, tmp_path, turn_seconds=1e-6) as manager:
        asked = TextRequest("", "abc", SamplingParams(max_new_tokens=100_000))
        ended = [event async for event in manager.complete(asked)][-2]
        assert isinstance(ended, SampleEnded)
        assert ended.reason is FinishReason.DEADLINE
