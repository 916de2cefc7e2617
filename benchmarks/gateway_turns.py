"""Talk through a gateway with the openai client, which sends its whole history each turn.

It runs in an environment that has `openai`, and needs nothing of this project:
`python benchmarks/gateway_turns.py URL --questions mt-bench-questions.jsonl --json FILE`
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import openai


def questions(path: Path, number: int) -> list[str]:
    """Return messages of MT-bench's questions, again and again."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [*islice(cycle(str(turn) for row in rows for turn in row["turns"]), number)]


def turn(client: openai.OpenAI, history: list[Any], session: str, most: int) -> dict[str, Any]:
    """Ask, add the answer to the history, and return what the turn took and said."""
    started = time.perf_counter()
    answer = client.chat.completions.create(
        model="any",
        messages=history,
        max_tokens=most,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-session-id": session},
    )
    first: float | None = None
    text, usage, told = "", None, dict[str, Any]()
    for chunk in answer:
        usage = chunk.usage or usage
        told = (chunk.model_extra or {}).get("streamingllm") or told
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece and first is None:
            first = time.perf_counter() - started
        text += piece or ""
    history.append({"role": "assistant", "content": text})
    details = getattr(usage, "prompt_tokens_details", None)
    return {
        "seconds_to_first_token": first,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "cached_tokens": getattr(details, "cached_tokens", None),
        "answer_tokens": usage.completion_tokens if usage else None,
        **{name: told.get(name) for name in ("first_visible_message", "forgotten_tokens")},
        "recalled": len(told.get("recalled") or ()),
    }


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of plain turns and of those with a rollover."""
    firsts = [one["first_visible_message"] for one in turns]
    rolled = [one for one, a, b in zip(turns[1:], firsts, firsts[1:], strict=False) if b != a]
    plain = [one for one in turns[1:] if one not in rolled]

    def seconds(of: list[dict[str, Any]]) -> dict[str, Any]:
        found = [one["seconds_to_first_token"] for one in of if one["seconds_to_first_token"]]
        return {"median": statistics.median(found), "most": max(found)} if found else {}

    read = sum(one["prompt_tokens"] - (one["cached_tokens"] or 0) for one in turns)
    written = sum(one["answer_tokens"] for one in turns)
    return {
        "turns": len(turns),
        "rollovers": len(rolled),
        "most_prompt_tokens": max(one["prompt_tokens"] for one in turns),
        "seconds_to_first_token": {"plain": seconds(plain), "rollover": seconds(rolled)},
        "prefilled_tokens": read,
        "answer_tokens": written,
        "turns_with_recall": sum(one["recalled"] > 0 for one in turns),
    }


def main() -> None:
    """Talk and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of the gateway, with /v1")
    parser.add_argument("--questions", type=Path, required=True, help="MT-bench's JSON lines")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--answer-tokens", type=int, default=48)
    parser.add_argument("--server", default="", help="what answers and where, for the record")
    parser.add_argument("--session", default=f"bench-{int(time.time())}")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    client = openai.OpenAI(base_url=asked.url, api_key="none", max_retries=0, timeout=600)
    history: list[Any] = [{"role": "system", "content": "You are a helpful assistant."}]
    about = {
        "server": asked.server,
        "answer_tokens_at_most": asked.answer_tokens,
        "versions": {"openai": openai.__version__, "python": platform.python_version()},
    }
    turns = []
    for number, question in enumerate(questions(asked.questions, asked.turns), 1):
        history.append({"role": "user", "content": question})
        turns.append(turn(client, history, asked.session, asked.answer_tokens))
        sys.stderr.write(f"\r{number} of {asked.turns}")
        asked.json.write_text(
            json.dumps({**about, **summary(turns), "each": turns}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
