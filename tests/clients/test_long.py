"""A conversation of 200 turns by each client, far past the 512 tokens that a session sees.

`STREAMINGLLM_RESULTS=FILE` writes what the turns cost.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import CACHE_SIZE, MODEL, processor_seconds
from tests.clients.conversations import MAX_TOKENS, NUM_TURNS, Turn, check_turns, question
from tests.clients.talkers import NODE_TALKERS, TALKERS, asking, node_turns

pytestmark = pytest.mark.slow
_PACKAGES = ("openai", "anthropic", "langchain-openai", "openai-agents", "pydantic-ai-slim", "llm")
_NUM_COMPARED = 10


@pytest.mark.parametrize("name", TALKERS)
def test_a_long_conversation(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMINGLLM_URL", url)
    turns, seconds, processor = [], [], [processor_seconds(url)]
    with asking(name, url) as ask:
        for number in range(NUM_TURNS):
            started = time.perf_counter()
            turns.append(ask(f"{question(number)} {name}"))
            seconds.append(time.perf_counter() - started)
            processor.append(processor_seconds(url))
    check_turns(turns, CACHE_SIZE)
    _record(name, turns, seconds, processor)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("name", NODE_TALKERS)
def test_a_long_conversation_of_node(name: str, url: str) -> None:
    turns, seconds, processor = [], [], [processor_seconds(url)]
    for row in node_turns(name, url, NUM_TURNS):
        turns.append(Turn(row["prompt"], row["cached"], row["generated"]))
        seconds.append(row["seconds"])
        processor.append(processor_seconds(url))
    check_turns(turns, CACHE_SIZE)
    _record(name, turns, seconds, processor)


def _record(
    name: str, turns: Sequence[Turn], seconds: Sequence[float], processor: Sequence[float]
) -> None:
    """Add a row to the file of results.

    Args:
        name: of the client.
        turns: their counts.
        seconds: that the client waited for each.
        processor: seconds of the server's processor, before the first turn and after each.
    """
    target = os.environ.get("STREAMINGLLM_RESULTS")
    if target is None:
        return
    path = Path(target)
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"clients": {}}
    fed = [turn.num_prompt_tokens - turn.num_cached_tokens for turn in turns]
    # From here on the window is full, because each turn adds its own tokens to it.
    seen = 0
    full = len(turns)
    for at, turn in enumerate(turns):
        seen += fed[at] + turn.num_generated_tokens
        if seen > CACHE_SIZE:
            full = at + 1
            break
    first, last = slice(full, full + _NUM_COMPARED), slice(-_NUM_COMPARED, None)
    used = [after - before for before, after in itertools.pairwise(processor)]
    results |= {
        "model": MODEL,
        "cache_size": CACHE_SIZE,
        "max_tokens": MAX_TOKENS,
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
        "commit": os.environ.get("STREAMINGLLM_COMMIT"),
    }
    results["clients"][name] = {
        "turns": len(turns),
        "tokens_seen": sum(fed) + sum(turn.num_generated_tokens for turn in turns),
        "first_turn_with_a_full_window": full,
        "tokens_fed_first_ten": sum(fed[first]),
        "tokens_fed_last_ten": sum(fed[last]),
        "tokens_fed_last_over_first": round(sum(fed[last]) / sum(fed[first]), 3),
        "seconds_median_first_ten": round(statistics.median(seconds[first]), 4),
        "seconds_median_last_ten": round(statistics.median(seconds[last]), 4),
        "seconds_last_over_first": round(sum(seconds[last]) / sum(seconds[first]), 3),
        "processor_seconds_first_ten": round(sum(used[first]), 3),
        "processor_seconds_last_ten": round(sum(used[last]), 3),
        "processor_seconds_last_over_first": round(sum(used[last]) / sum(used[first]), 3),
        "processor_seconds_median_last_over_first": round(
            statistics.median(used[last]) / statistics.median(used[first]), 3
        ),
        "processor_seconds_longest_turn": round(max(used[full:]), 3),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
    path.write_text(json.dumps(results, indent=2) + "\n")
