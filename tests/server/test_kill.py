"""kill -9 under load: no answered turn is lost, and the next answers are those without a kill."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx2
import pytest

from tests.reference.tiny_chat import write_tiny_chat
from tests.server.server_process import ServerProcess
from tests.server.talkers import Talker, answers_alone, kill_moment

pytestmark = pytest.mark.anyio

NUM_KILLS = 3
SLOWEST_KILL = 0.8
# Few slots, little memory and early snapshots: sessions move between all tiers when it dies.
OPTIONS = (
    *("--cache-size", "64", "--dtype", "float64", "--threads", "1", "--no-compile"),
    *("--max-streams", "2", "--host-memory", "150KB", "--disk", "400KB"),
    *("--snapshot-seconds", "0.05", "--log-level", "warning"),
)


async def test_no_answered_turn_is_lost_when_the_server_is_killed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = write_tiny_chat(tmp_path_factory.mktemp("tiny-chat"))
    rng = random.Random(0)
    talkers = [Talker(number, num_turns=12) for number in range(4)]
    with ServerProcess(model, tmp_path / "killed", *OPTIONS) as server:
        for _ in range(NUM_KILLS):
            async with httpx2.AsyncClient(base_url=server.url, timeout=120) as http:
                talks = [asyncio.create_task(talker.talk(http)) for talker in talkers]
                await asyncio.sleep(kill_moment(rng, SLOWEST_KILL))
                server.kill()
                await asyncio.gather(*talks)
            server.start()
            async with httpx2.AsyncClient(base_url=server.url, timeout=120) as http:
                for talker in talkers:
                    for conversation in talker.conversations:
                        await conversation.check(http)
        told = [conversation for talker in talkers for conversation in talker.conversations]
        async with httpx2.AsyncClient(base_url=server.url, timeout=120) as http:
            for conversation in told:
                await conversation.ask(http)
    with ServerProcess(model, tmp_path / "alone", *OPTIONS) as alone:
        async with httpx2.AsyncClient(base_url=alone.url, timeout=120) as http:
            for conversation in told:
                expected = await answers_alone(http, conversation, conversation.name)
                assert conversation.turns == expected
