"""Responses that a server leaves behind when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import ResponseNotFoundError
from streamingllm.server.errors import ApiError
from streamingllm.server.responses.builder import ResponseBuilder
from streamingllm.server.responses.requests import response_facts
from streamingllm.server.responses.runs import ResponseRuns, input_items_of
from streamingllm.server.schemas.responses import ResponseRequest
from streamingllm.stream.sampling import SamplingParams
from tests.server.open_responses import check_events, check_response
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
        events = [event async for event in _some(runs.listen("", builder.id, -1), 40)]
        # Another process has the store alone, and knows of nothing that runs.
        other = ResponseRuns(manager, 60.0)
        found = await other.get("", builder.id)
        check_response(json.loads(found.body))
        assert found.status == "failed"
        with pytest.raises(ResponseNotFoundError):
            other.place_after("", builder.id)
        heard = [event async for event in other.listen("", builder.id, 5)]
        assert len(heard) > 20
        both = min(len(heard) - 1, len(events) - 6)
        assert heard[:both] == events[6 : 6 + both]
        assert heard[-1]["type"] == "response.failed"
        check_events([*events[:6], *heard, "[DONE]"])
        cancelled = await runs.cancel("", builder.id)
        assert cancelled.status == "cancelled"
        assert await say(manager, "more", identity=named("s"))
        await runs.close()


@pytest.mark.parametrize("what", ["response", "session"])
async def test_what_is_deleted_while_it_runs_stays_deleted(
    tiny_chat: LanguageModel, tmp_path: Path, what: str
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        runs = ResponseRuns(manager, 60.0)
        turn = request("hi", identity=named("s"), params=ENDLESS)
        body = ResponseRequest(input="hi", background=True)
        builder = ResponseBuilder(response_facts(body, ENDLESS, "tiny"))
        run = await runs.start(builder, turn, input_items_of(turn))
        if what == "response":
            await runs.delete("", builder.id)
        else:
            await manager.delete("", "s")
        assert run.task is not None
        await asyncio.wait((run.task,))
        with pytest.raises(ApiError, match="not found"):
            await runs.get("", builder.id)
        assert manager.responses.count() == 0


async def _some(events: AsyncGenerator[Any, None], most: int) -> AsyncIterator[Any]:
    """The first events of a stream that does not end."""
    async with contextlib.aclosing(events):
        async for event in events:
            yield event
            if event["sequence_number"] + 1 >= most:
                return
