"""Talk through a gateway with the openai client, which sends its whole history each turn.

It runs in an environment that has `openai`, and needs nothing of this project:
`python -m benchmarks.gateway_turns URL --questions mt-bench-questions.jsonl --json FILE`

With `--upstream` it stands between the gateway and its server as well, at `--record-port`. So it
counts the requests that warm a rollover, and `--transcript` keeps what each request was. From that
`gateway_nats` tells how much worse a rollover predicts than a stream.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import openai

from benchmarks.gateway_results import WARMING, answered, most, prefilled, total, write_under
from benchmarks.recording_proxy import recording

_SYSTEM = "You are a helpful assistant."


def questions(path: Path, number: int) -> list[str]:
    """Return messages of MT-bench's questions, again and again."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [*islice(cycle(str(turn) for row in rows for turn in row["turns"]), number)]


def turn(client: openai.OpenAI, options: argparse.Namespace, history: list[Any]) -> dict[str, Any]:
    """Ask, add the answer to the history, and return what the turn took and said."""
    started = time.perf_counter()
    answer = client.chat.completions.create(
        model=options.model,
        messages=history,
        max_tokens=options.answer_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-session-id": options.session},
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


def summary(turns: list[dict[str, Any]], asked: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of plain turns and of those with a rollover, and what the server counted."""
    firsts = [one["first_visible_message"] for one in turns]
    rolled = [one for one, a, b in zip(turns[1:], firsts, firsts[1:], strict=False) if b != a]
    plain = [one for one in turns[1:] if one not in rolled]

    def seconds(of: list[dict[str, Any]]) -> dict[str, Any]:
        found = [one["seconds_to_first_token"] for one in of if one["seconds_to_first_token"]]
        return {"median": statistics.median(found), "most": max(found)} if found else {}

    known = answered(asked)
    warming = [one["usage"] for one in known if one["max_tokens"] == WARMING]
    others = [one["usage"] for one in known if one["max_tokens"] != WARMING]
    return {
        "turns": len(turns),
        "rollovers": len(rolled),
        "most_prompt_tokens": most(one["prompt_tokens"] for one in turns),
        "seconds_to_first_token": {"plain": seconds(plain), "rollover": seconds(rolled)},
        "prefilled_tokens": {
            "turns": prefilled(others),
            "warming": prefilled(warming),
        },
        "requests_that_warm": len(warming),
        "answer_tokens": total(one["answer_tokens"] for one in turns),
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
    parser.add_argument("--name", default="upstream", help="of the server, among the results")
    parser.add_argument("--model", default="any", help="name that the server knows")
    parser.add_argument("--session", default=f"bench-{int(time.time())}")
    parser.add_argument("--upstream", default="", help="the server, if the gateway's is this")
    parser.add_argument("--record-port", type=int, default=8099, help="the gateway's upstream")
    parser.add_argument("--transcript", type=Path, help="where requests and answers go")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with ExitStack() as held:
        asked: list[dict[str, Any]] = []
        if options.upstream:
            proxy = recording(options.record_port, options.upstream)
            asked = held.enter_context(proxy).asked
        talk(options, asked)


def talk(options: argparse.Namespace, asked: list[dict[str, Any]]) -> None:
    """Ask all questions and write what was measured after each."""
    client = openai.OpenAI(base_url=options.url, api_key="none", max_retries=0, timeout=600)
    history: list[Any] = [{"role": "system", "content": _SYSTEM}]
    about = {
        "server": options.server,
        "answer_tokens_at_most": options.answer_tokens,
        "versions": {"openai": openai.__version__, "python": platform.python_version()},
    }
    turns = []
    for number, question in enumerate(questions(options.questions, options.turns), 1):
        history.append({"role": "user", "content": question})
        turns.append(turn(client, options, history))
        sys.stderr.write(f"\r{number} of {options.turns}")
        found = {**about, **summary(turns, asked), "each": turns}
        write_under(options.json, options.name, found)
        if options.transcript:
            kept = {"history": history, "asked": asked}
            options.transcript.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
