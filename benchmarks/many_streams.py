"""Run 64 streams with 64 pinned prefixes in one engine, and compare each with its run alone.

Run: `python -m benchmarks.many_streams --steps 10000 --json benchmarks/results/many-streams.json`

Streams join, leave, fork, abort, and are exported and imported at random. The model is tiny and
random, its predictions depend on every token it sees. A generated token counts as equal if it is
the most probable one of the stream alone, and as a tie if its logit is at most 1e-3 below that.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import psutil
import torch
import typer

from benchmarks.progress import shown
from streamingllm import Engine, LanguageModel, SamplingParams, Stream, StreamConfig
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.engine import StreamState
from streamingllm.errors import RewindError
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=60, max_rewind_tokens=8, chunk_size=128)
MAX_PINNED_TOKENS = 40
MAX_TOKENS = 1500  # a longer stream leaves
TIE = 1e-3
ACTIONS = ("abort", "export", "import", "fork", "join", "rewind", "none")


@dataclass
class Session:
    """One stream seen from outside: its tokens, and where it is."""

    num_pinned_tokens: int
    ids: list[int]
    is_generated: list[bool]
    stream_id: str | None = None
    data: bytes | None = field(default=None, repr=False)


class ManyStreams:
    """Drive sessions at random and count how many of their tokens are those of a stream alone."""

    def __init__(self, lm: LanguageModel, engine: Engine, num_streams: int, seed: int) -> None:
        self.lm, self.engine = lm, engine
        self.random = random.Random(seed)
        self.sessions: list[Session] = []
        self.by_id: dict[str, Session] = {}
        self.counts = dict.fromkeys((*ACTIONS, "submit", "equal", "tie", "different"), 0)
        self.export_seconds: list[float] = []
        self.import_seconds: list[float] = []
        self.num_bytes: list[int] = []
        for number in range(num_streams):
            self.join(1 + number * (MAX_PINNED_TOKENS - 1) // max(1, num_streams - 1))

    def step(self) -> None:
        """Do one action, submit to streams that are idle, and step."""
        action = self.random.choice(ACTIONS)
        self.counts[action] += bool(getattr(self, f"try_{action}")())
        for session in self.random.sample(self.sessions, 4):
            if session.stream_id and self.engine.state(session.stream_id) == "idle":
                self.submit(session)
        for output in self.engine.step():
            if output.error is not None:
                raise output.error
            owner = self.by_id.get(output.stream_id)
            if owner is not None:
                owner.ids += output.token_ids
                owner.is_generated += [True] * len(output.token_ids)

    def submit(self, session: Session) -> None:
        """Let an idle stream read and generate."""
        assert session.stream_id is not None
        ids = self._ids(self.random.randint(1, 40))
        most = self.random.randint(1, 80)
        self.engine.submit(
            session.stream_id, ids, SamplingParams(max_new_tokens=most, ignore_eos=True)
        )
        session.ids += ids
        session.is_generated += [False] * len(ids)
        self.counts["submit"] += 1

    def join(self, num_pinned_tokens: int) -> None:
        """Open a stream with a prefix of its own."""
        pinned = self._ids(num_pinned_tokens)
        session = Session(num_pinned_tokens, [*pinned], [False] * num_pinned_tokens)
        self._enter(session, self.engine.open_stream(pinned=pinned))
        self.sessions.append(session)

    def leave(self, session: Session) -> None:
        """Close a stream and compare its tokens."""
        if session.stream_id is not None:
            self._close(session)
        self.sessions.remove(session)
        self.compare(session)

    def try_none(self) -> bool:
        return True

    def try_abort(self) -> bool:
        session = self.random.choice(self.sessions)
        if session.stream_id is not None:
            self.engine.abort(session.stream_id)
        return session.stream_id is not None

    def try_export(self) -> bool:
        session = self.random.choice(self.sessions)
        if session.stream_id is None:
            return False
        started = time.perf_counter()
        session.data = self.engine.export_state(session.stream_id).to_bytes()
        self.export_seconds.append(time.perf_counter() - started)
        self.num_bytes.append(len(session.data))
        self._close(session)
        return True

    def try_import(self) -> bool:
        away = [session for session in self.sessions if session.data is not None]
        if not away:
            return False
        session = self.random.choice(away)
        assert session.data is not None
        started = time.perf_counter()
        stream_id = self.engine.open_stream(state=StreamState.from_bytes(session.data))
        self.import_seconds.append(time.perf_counter() - started)
        session.data = None
        self._enter(session, stream_id)
        return True

    def try_fork(self) -> bool:
        parent, other = self.random.sample(self.sessions, 2)
        if parent.stream_id is None or self.engine.state(parent.stream_id) == "waiting":
            return False
        if other.stream_id is None:
            return False
        self.leave(other)
        child = Session(parent.num_pinned_tokens, [*parent.ids], [*parent.is_generated])
        self._enter(child, self.engine.fork(parent.stream_id))
        self.sessions.append(child)
        return True

    def try_join(self) -> bool:
        longest = max(self.sessions, key=lambda session: len(session.ids))
        is_long = len(longest.ids) > MAX_TOKENS
        self.leave(longest if is_long else self.random.choice(self.sessions))
        self.join(self.random.randint(1, MAX_PINNED_TOKENS))
        return True

    def try_rewind(self) -> bool:
        idle = [
            session
            for session in self.sessions
            if session.stream_id is not None
            and self.engine.state(session.stream_id) == "idle"
            and len(session.ids) >= session.num_pinned_tokens + 20
        ]
        if not idle:
            return False
        session, num_tokens = self.random.choice(idle), self.random.randint(1, 5)
        assert session.stream_id is not None
        try:
            self.engine.rewind(session.stream_id, num_tokens)
        except RewindError:  # a stream rewound twice may be at the end of its rewind buffer
            return False
        del session.ids[-num_tokens:], session.is_generated[-num_tokens:]
        return True

    def compare(self, session: Session) -> None:
        """Count the generated tokens that a stream alone would have generated."""
        if not any(session.is_generated):
            return
        n = max(CONFIG.num_sink_tokens, session.num_pinned_tokens)
        alone = Stream(self.lm.model, StreamConfig.with_cache_size(CONFIG.cache_size, n))
        logits = alone.feed(torch.tensor(session.ids, device=self.lm.model.device))[:-1].cpu()
        chosen = logits.gather(1, torch.tensor(session.ids[1:])[:, None])[:, 0]
        behind = (logits.max(dim=-1).values - chosen)[torch.tensor(session.is_generated[1:])]
        self.counts["equal"] += int((behind == 0.0).sum())
        self.counts["tie"] += int(((behind > 0.0) & (behind <= TIE)).sum())
        self.counts["different"] += int((behind > TIE).sum())

    def finish(self) -> None:
        """Close all streams and compare what is left."""
        for session in [*self.sessions]:
            self.leave(session)

    def _enter(self, session: Session, stream_id: str) -> None:
        session.stream_id = stream_id
        self.by_id[stream_id] = session

    def _close(self, session: Session) -> None:
        assert session.stream_id is not None
        self.engine.close_stream(session.stream_id)
        del self.by_id[session.stream_id]
        session.stream_id = None

    def _ids(self, number: int) -> list[int]:
        return [self.random.randrange(256) for _ in range(number)]


def measure(num_streams: int, num_steps: int, seed: int, device: str) -> dict[str, Any]:
    """Run and return counts, times and memory."""
    lm, process = tiny_lm(), psutil.Process()
    lm.model.to(torch.device(device))  # type: ignore[arg-type]
    seconds, memory = [], []
    with Engine(lm, CONFIG, max_streams=num_streams, max_pinned_tokens=MAX_PINNED_TOKENS) as engine:
        many = ManyStreams(lm, engine, num_streams, seed)
        nbytes = engine.stats().nbytes
        for number in shown(range(num_steps), "steps"):
            started = time.perf_counter()
            many.step()
            seconds.append(time.perf_counter() - started)
            if number % max(1, num_steps // 20) == 0:
                memory.append(process.memory_info().rss)
        many.finish()
        stats = engine.stats()
        assert stats.nbytes == nbytes
    return {
        "streams": num_streams,
        "steps": num_steps,
        "tokens": {name: many.counts[name] for name in ("equal", "tie", "different")},
        "actions": {name: many.counts[name] for name in ("submit", *ACTIONS)},
        "generated_tokens": stats.num_generated_tokens,
        "engine_bytes": nbytes,
        "resident_megabytes": [round(resident / 1e6, 1) for resident in memory],
        "milliseconds_per_step": statistics.median(seconds) * 1e3,
        "milliseconds_per_export": statistics.median(many.export_seconds) * 1e3,
        "milliseconds_per_import": statistics.median(many.import_seconds) * 1e3,
        "bytes_per_export": statistics.median(many.num_bytes),
    }


def main(
    streams: Annotated[int, typer.Option(help="Streams with a prefix of their own.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps of the engine.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of actions, prompts and prefixes.")] = 0,
    device: Annotated[str, typer.Option(help="Where the model is: cpu or cuda.")] = "cpu",
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
) -> None:
    """Measure and write the results."""
    write_json(json, {**measure(streams, steps, seed, device), **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
