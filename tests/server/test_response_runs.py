"""Responses that a server leaves behind when it dies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import ResponseNotFoundError
from streamingllm.server.responses.builder import ResponseBuilder
from streamingllm.server.responses.requests import response_facts
from streamingllm.server.responses.runs import ResponseRuns, input_items_of
from streamingllm.server.schemas.responses import ResponseRequest
from streamingllm.stream.sampling import SamplingParams
from tests.server.open_responses import check_response
from tests.sessions.managers import managing, named, request, say

pytestmark = pytest.mark.anyio

ENDLESS = SamplingParams(max_new_tokens=None, ignore_eos=True)


async def test_a_response_that_ran_when_the_server_died_has_failed(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        runs = ResponseRuns(manager, 60.0)
        turn = request("hi", identity=named("s"), params=ENDLESS)
        body = ResponseRequest(input="hi", background=True)
        builder = ResponseBuilder(response_facts(body, ENDLESS, "tiny"))
        await runs.start(builder, turn, input_items_of(turn))
        # Another process has the store alone, and knows of nothing that runs.
        other = ResponseRuns(manager, 60.0)
        found = await other.get("", builder.id)
        check_response(json.loads(found.body))
        assert found.status == "failed"
        with pytest.raises(ResponseNotFoundError):
            other.place_after("", builder.id)
        cancelled = await runs.cancel("", builder.id)
        assert cancelled.status == "cancelled"
        assert await say(manager, "more", identity=named("s"))
        await runs.close()
