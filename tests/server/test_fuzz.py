"""Random requests to all routes: no 5xx, no hang, every answer as the API describes it."""

from __future__ import annotations

import pytest

from tests.server.fuzz_run import fuzz_run

pytestmark = pytest.mark.anyio

NUM_REQUESTS = 600
ANSWERING = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")


async def test_random_requests_are_answered_as_the_api_says(server: str) -> None:
    run = fuzz_run(server, "tiny", seed=0)
    await run.send(range(NUM_REQUESTS), num_at_once=4)
    assert not run.tally.problems, "\n".join(run.tally.problems)
    for ending in ("", ", streamed"):  # the requests reach the model, both ways
        assert any(f"POST {route}{ending}" in run.tally.succeeded for route in ANSWERING)
