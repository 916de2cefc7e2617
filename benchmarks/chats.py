"""Compare 16 chats at once with llama.cpp's server, turn and turn about in one run.

Run: `python -m benchmarks.chats --json benchmarks/results/chats.json`

Both servers serve the default model's GGUF file, with as many slots as chats and the same context.
Unmodified clients send their whole history each turn over `/v1/chat/completions` and stream the
answer. llama.cpp reuses its prompt cache and may shift its context. A bare engine that is fed the
same tokens shows what our server adds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from benchmarks.peers.environments import python_of
from streamingllm import Engine, SamplingParams, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.models import LanguageModel
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.transcript import Message

MODEL = "smollm2-135m-instruct"
OURS, PEER = "streamingllm", "llama.cpp"
_QUESTIONS = (
    "Tell me about the sea.",
    "What would you pack for a journey on foot?",
    "Explain how bread is made.",
    "Describe a quiet street in the rain.",
    "How does a bicycle stay upright?",
    "Say more about the last point.",
)
_READY_SECONDS = 600


def question_of(number: int, turn: int) -> str:
    """Return what a chat asks in a turn."""
    return _QUESTIONS[(number + turn) % len(_QUESTIONS)]


async def chat(
    client: httpx2.AsyncClient, number: int, num_turns: int, max_tokens: int
) -> list[dict[str, float]]:
    """Have one conversation; return the figures of its turns."""
    history: list[dict[str, str]] = [{"role": "system", "content": f"You are guide {number}."}]
    turns = []
    for turn in range(num_turns):
        said = f"{question_of(number, turn)} ({turn})"
        history.append({"role": "user", "content": said})
        body = {
            "messages": history,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        usage: dict[str, float] = {}
        started, first, text = time.perf_counter(), None, ""
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code}: {(await answer.aread())[:300]!r}")
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    piece = choice["delta"].get("content") or ""
                    if piece and first is None:
                        first = time.perf_counter()
                    text += piece
        history.append({"role": "assistant", "content": text})
        turns.append(
            {
                "tokens": usage["completion_tokens"],
                "seconds_to_first": (first or time.perf_counter()) - started,
                "seconds": time.perf_counter() - started,
            }
        )
    return turns


def round_of(url: str, num_chats: int, num_turns: int, max_tokens: int) -> dict[str, float]:
    """Let all chats talk at once and return the figures."""

    async def talk() -> list[list[dict[str, float]]]:
        # A connection for each request: llama.cpp's server closes those that it has answered.
        limits = httpx2.Limits(max_connections=num_chats, max_keepalive_connections=0)
        async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
            chats = [chat(client, n, num_turns, max_tokens) for n in range(num_chats)]
            return await asyncio.gather(*chats)

    started = time.perf_counter()
    turns = [turn for found in asyncio.run(talk()) for turn in found]
    seconds = time.perf_counter() - started
    firsts = sorted(turn["seconds_to_first"] for turn in turns)
    return {
        "tokens_per_second": sum(turn["tokens"] for turn in turns) / seconds,
        "first_token_p50_seconds": statistics.median(firsts),
        "first_token_p95_seconds": firsts[int(0.95 * (len(firsts) - 1))],
        "tokens": sum(turn["tokens"] for turn in turns),
        "seconds": seconds,
    }


class BareChat:
    """Give an engine the token ids of the same conversation, turn by turn.

    Args:
        lm: model and tokenizer.
        number: of the chat.
        num_turns: of the conversation.
    """

    def __init__(self, lm: LanguageModel, number: int, num_turns: int) -> None:
        self._template = ChatTemplate(lm, f"You are guide {number}.")
        self._questions = [f"{question_of(number, turn)} ({turn})" for turn in range(num_turns)]
        self._text = ""
        self._last_token_id: int | None = None
        self.pinned = self._template.opening_ids()
        self.stop_token_ids = self._template.end_token_ids
        self.has_begun = False

    def next_ids(self) -> list[int] | None:
        """Return the ids of the next turn; None after the last."""
        if not self._questions:
            return None
        said = [Message.of_text("user", self._questions.pop(0))]
        if not self.has_begun:
            self.has_begun = True
            return self._template.first_turn_ids(said)
        answer, self._text = Message.of_text("assistant", self._text), ""
        return self._template.next_turn_ids(said, answer, last_token_id=self._last_token_id)

    def take(self, text: str, token_ids: Sequence[int]) -> None:
        """Take over what was generated."""
        self._text += text
        if token_ids:
            self._last_token_id = token_ids[-1]


def bare_round(
    engine: Engine, lm: LanguageModel, num_chats: int, num_turns: int, max_tokens: int
) -> dict[str, float]:
    """Let an engine alone have the same conversations."""
    chats = {}
    for number in range(num_chats):
        one = BareChat(lm, number, num_turns)
        chats[engine.open_stream(pinned=one.pinned)] = one
    started, num_tokens = time.perf_counter(), 0

    def go_on(stream_id: str) -> None:
        ids = chats[stream_id].next_ids()
        if ids is not None:
            stops = chats[stream_id].stop_token_ids
            params = SamplingParams(max_new_tokens=max_tokens, stop_token_ids=stops)
            engine.submit(stream_id, ids, params)

    for stream_id in chats:
        go_on(stream_id)
    while engine.has_work:
        for output in engine.step():
            num_tokens += len(output.token_ids)
            chats[output.stream_id].take(output.text, output.token_ids)
            if output.finish_reason is not None:
                go_on(output.stream_id)
    seconds = time.perf_counter() - started
    for stream_id in chats:
        engine.close_stream(stream_id)
    return {"tokens_per_second": num_tokens / seconds, "tokens": num_tokens, "seconds": seconds}


@contextmanager
def serving(command: list[str], url: str) -> Iterator[None]:
    """Run a server while the body runs."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(process, url, log)
            yield
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Any) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(log.read()[-2000:].decode(errors="replace"))
        try:
            if httpx2.get(f"{url}/v1/models", timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.5)
    raise RuntimeError(f"{url} is not ready after {_READY_SECONDS} s")


def main(
    json_file: Annotated[str, typer.Option("--json")] = "-",
    rounds: int = 3,
    chats: int = 16,
    turns: int = 4,
    max_tokens: int = 64,
    context: int = 1024,
    threads: int = 2,
    warm_seconds: Annotated[float, typer.Option(help="For our step to be compiled.")] = 60.0,
) -> None:
    """Run both servers, then the bare engine, in each of some rounds."""
    lm = load_model(MODEL, quantize="int4")
    gguf = str(lm.source).removeprefix("package:").removeprefix("gguf:")
    ports = {OURS: 8751, PEER: 8752}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    figures: dict[str, list[dict[str, float]]] = {OURS: [], PEER: [], "engine alone": []}
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "streamingllm", "serve", "--quantize", "int4"]
        ours += ["--port", str(ports[OURS]), "--data-dir", folder, "--cache-size", str(context)]
        ours += ["--max-streams", str(chats), "--threads", str(threads), "--log-level", "warning"]
        script = str(Path(__file__).with_name("llama_cpp_server.py"))
        peer = [str(python_of("llama_cpp_server")), script, _gguf_of(gguf), str(ports[PEER])]
        peer += [str(chats), str(context), str(threads)]
        with serving(ours, urls[OURS]), serving(peer, urls[PEER]):
            time.sleep(warm_seconds)
            for number in range(rounds + 1):
                for name in (OURS, PEER):
                    found = round_of(urls[name], chats, turns, max_tokens)
                    print(name, found, file=sys.stderr)
                    if number:  # the first round warms both up
                        figures[name].append(found)
    config = StreamConfig.with_cache_size(
        context, 4, max_rewind_tokens=context // 4, eviction="turn"
    )
    stall = ServerSettings().max_stall
    with Engine(
        lm, config, max_streams=chats, max_pinned_tokens=context // 2, max_stall=stall
    ) as engine:
        engine.compile(wait=True)
        for number in range(rounds + 1):
            found = bare_round(engine, lm, chats, turns, max_tokens)
            print("engine alone", found, file=sys.stderr)
            if number:
                figures["engine alone"].append(found)
    settings = {"chats": chats, "turns": turns, "max_tokens": max_tokens, "context": context}
    result = {"rounds": figures, "medians": medians(figures), "config": settings}
    write_json(json_file, {**result, "threads": threads, **run_record()})


def medians(figures: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the median of each figure."""
    return {
        name: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        for name, rounds in figures.items()
        if rounds
    }


def _gguf_of(source: str) -> str:
    """Return the file of the default model, which its package or the hub has put into the cache."""
    from streamingllm.cache_folder import cache_folder

    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return source
    (found,) = sorted(cache_folder().glob(f"{MODEL}/*.gguf"))
    return str(found)


if __name__ == "__main__":
    typer.run(main)
