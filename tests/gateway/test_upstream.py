"""Lines of the server behind a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from streamingllm.gateway.upstream import event_lines

pytestmark = pytest.mark.anyio
LINES = ["data: a\u2028b\x85c", "", "data: é", "", "data: [DONE]"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 5, 100])
async def test_a_line_is_whole_wherever_its_bytes_are_cut(end: str, size: int) -> None:
    told = end.join(LINES).encode()

    async def parts() -> AsyncIterator[bytes]:
        for first in range(0, len(told), size):
            yield told[first : first + size]

    answer = httpx2.Response(200, content=parts())
    assert [line async for line in event_lines(answer)] == LINES
