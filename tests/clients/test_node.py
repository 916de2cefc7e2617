"""Clients of Node.js, as they are installed: openai and the AI SDK."""

from __future__ import annotations

import shutil

import pytest

from tests.clients.talkers import NODE_TALKERS, node_turns


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("name", NODE_TALKERS)
def test_a_short_conversation(name: str, url: str) -> None:
    rows = list(node_turns(name, url, 4))
    assert len(rows) == 4
    assert all(row["text"] and 0 < row["generated"] <= 8 for row in rows)
    assert all(0 < row["cached"] < row["prompt"] for row in rows[1:])
