"""Let 200 sessions talk over few slots of an engine, and compare with what `plan` forecasts.

Run: `python -m benchmarks.capacity --json benchmarks/results/capacity.json`

The speed is measured first, with the parts of the work alone: prompts, steps, moves of a state.
The forecast knows nothing else. Then the sessions talk turn by turn, in an order that finds no
session in its slot again. Idle states are on the host, as many as the forecast is given bytes for;
the others are replayed. Seconds are those of the processor, so that neighbours do not count.
"""

from __future__ import annotations

import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.progress import shown
from streamingllm import Engine, LanguageModel, SamplingParams, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.engine import StreamState
from streamingllm.evaluation.capacity.calibration import measure_speed
from streamingllm.evaluation.capacity.forecast import Machine, forecast
from streamingllm.evaluation.capacity.model_costs import costs_of
from streamingllm.evaluation.capacity.workload import Workload
from streamingllm.evaluation.inspection import inspect_model
from tests.reference.tiny_chat import write_tiny_chat

MODEL = "smollm2-135m-instruct"


class Crowd:
    """Let sessions talk over the slots of an engine, with a host for some idle states.

    Args:
        engine: with fewer slots than sessions.
        history: token ids that each session begins with.
        host_states: states that the host holds.
        work: tokens of a turn.
    """

    def __init__(
        self, engine: Engine, history: list[int], host_states: int, work: Workload
    ) -> None:
        self._engine, self._history, self._host_states = engine, history, host_states
        self._prompt = history[: int(work.prompt_tokens)]
        self._params = SamplingParams(max_new_tokens=int(work.answer_tokens), ignore_eos=True)
        self._host: OrderedDict[int, StreamState] = OrderedDict()
        self._running: dict[str, int] = {}
        self.replays = 0
        self.state_bytes: set[int] = set()
        self.tokens = 0

    def talk(self, order: Iterator[int], slots: int) -> Iterator[int]:
        """Give each session of an order a turn; yield those that have ended."""
        waiting = deque(order)
        while waiting or self._running:
            while waiting and len(self._running) < slots:
                self._begin(waiting.popleft())
            for output in self._engine.step():
                self.tokens += len(output.token_ids)
                if output.finish_reason is not None:
                    yield self._end(output.stream_id)

    def _begin(self, number: int) -> None:
        state = self._host.pop(number, None)
        self.replays += state is None
        ids = self._prompt if state is not None else [*self._history, *self._prompt]
        stream_id = self._engine.open_stream(state=state)
        self._engine.submit(stream_id, ids, self._params)
        self._running[stream_id] = number

    def _end(self, stream_id: str) -> int:
        number = self._running.pop(stream_id)
        state = self._engine.export_state(stream_id)
        self._engine.close_stream(stream_id)
        if self._host_states:
            self._host[number] = state
            self.state_bytes.add(state.nbytes)
        while len(self._host) > self._host_states:
            self._host.popitem()  # the latest, so that an order in turns finds the others
        return number


def measure(
    lm: LanguageModel, config: StreamConfig, slots: int, sessions: int, host_share: float,
    work: Workload, clock_name: str,
) -> dict[str, Any]:  # fmt: skip
    """Forecast a round of turns, run it, and compare."""
    clock = {"processor": time.process_time, "wall": time.perf_counter}[clock_name]
    speed = measure_speed(lm, config, slots, clock=clock)
    costs = costs_of(inspect_model(lm.model, config), config, lm.quantization)
    host_states = round(sessions * host_share)
    machine = Machine(
        memory_bytes=costs.weight_bytes + slots * (costs.cache_bytes + costs.rewind_bytes),
        max_streams=slots,
        host_bytes=max(0, host_states - slots) * (costs.cache_bytes + costs.rewind_bytes),
        busy_share=1.0,
    )
    found = forecast("sinks", costs, speed, replace(work, users=sessions), machine)
    history = [1 + k % 200 for k in range(int(work.history_tokens))]
    with Engine(lm, config, max_streams=slots) as engine:
        crowd = Crowd(engine, history, host_states, work)
        for _ in shown(crowd.talk(iter(range(sessions)), slots), "first turns"):
            pass
        crowd.replays = crowd.tokens = 0
        start = clock()
        for _ in shown(crowd.talk(iter(range(sessions)), slots), "turns"):
            pass
        seconds = clock() - start
    state_bytes = max(crowd.state_bytes, default=0)
    return {
        "turns": sessions,
        "tokens": crowd.tokens,
        "replays": {"measured": crowd.replays, "forecast": found.replay_share * sessions},
        "seconds": {"measured": seconds, "forecast": found.seconds_per_turn * sessions},
        "state_bytes": {"measured": state_bytes, "forecast": found.idle_bytes_per_session},
        "forecast_over_measured": found.seconds_per_turn * sessions / seconds,
        "speed": asdict(speed),
    }


def main(
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
    model: Annotated[str, typer.Option(help="Name or folder; a tiny random one if empty.")] = MODEL,
    quantize: Annotated[str, typer.Option(help="Of the weights.")] = "int4",
    sessions: Annotated[int, typer.Option(help="That talk.")] = 200,
    slots: Annotated[int, typer.Option(help="Of the engine.")] = 8,
    cache_size: Annotated[int, typer.Option(help="Of a session.")] = 256,
    turn_tokens: Annotated[int, typer.Option(help="Of a prompt, and of an answer.")] = 24,
    clock: Annotated[str, typer.Option(help="processor or wall.")] = "processor",
) -> None:
    """Measure with all idle states on the host, and with half of them replayed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lm = load_model(model or write_tiny_chat(Path(folder)), quantize=quantize)
    config = StreamConfig.with_cache_size(cache_size, 4)
    work = Workload(
        users=1,
        prompt_tokens=turn_tokens,
        answer_tokens=turn_tokens,
        history_tokens=cache_size,
        peak_factor=1,
    )
    rows = {
        f"{share:.0%} of the states on the host": measure(
            lm, config, slots, sessions, share, work, clock
        )
        for share in (1.0, 0.5)
    }
    settings = {
        "model": model or "tiny, random",
        "quantize": quantize,
        "slots": slots,
        "cache_size": cache_size,
    }
    payload = {"rows": rows, "workload": asdict(work), "clock": clock, "config": settings}
    write_json(json, {**payload, **run_record()})


if __name__ == "__main__":
    typer.run(main)
