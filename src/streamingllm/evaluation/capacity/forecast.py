"""Forecast bytes, machines and money of a workload under four ways to keep a conversation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from streamingllm.checks import check_choice
from streamingllm.errors import CapacityError, ConfigError
from streamingllm.evaluation.capacity.model_costs import ModelCosts
from streamingllm.evaluation.capacity.speed import Speed
from streamingllm.evaluation.capacity.workload import Workload

METHODS = ("sinks", "dense", "resend", "recompute")
# Of a token in the store: its id, its text and the index of the search. Measured with 1,000 tokens
# in each of 100,000 sessions: benchmarks/results/dormant-sessions.json.
LOG_BYTES_PER_TOKEN = 15.9
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Machine:
    """Describe what a machine offers to sessions.

    Args:
        memory_bytes: of the device.
        max_streams: that decode at once.
        host_bytes: for states of idle sessions.
        disk_bytes: for snapshots of idle sessions.
        busy_share: of its time that may be planned for.
        price_per_hour: in any currency; None if money does not matter.

    Raises:
        ConfigError: a figure is out of range.
    """

    memory_bytes: float
    max_streams: int = 32
    host_bytes: float = 0.0
    disk_bytes: float = 0.0
    busy_share: float = 0.7
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.busy_share <= 1:
            raise ConfigError(f"busy_share={self.busy_share} is out of range; choose 0 to 1")
        for name in ("memory_bytes", "host_bytes", "disk_bytes", "price_per_hour"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name}={value} is negative; give a number of at least 0")
        if self.max_streams < 1:
            raise ConfigError(f"max_streams={self.max_streams} is less than 1; give at least 1")


@dataclass(frozen=True)
class Forecast:
    """Hold the figures of one method.

    Args:
        method: one of `METHODS`.
        device_bytes_per_stream: keys and values of a stream in the middle of an answer.
        idle_bytes_per_session: of a session that is put away with its keys and values.
        log_bytes: of all sessions' text and ids.
        slots: streams that a machine decodes at once.
        tokens_per_second: that a user sees in the busiest hour.
        first_token_seconds: of an average turn, without waiting.
        seconds_per_turn: of a machine.
        replay_share: of the turns whose session has no keys and values left.
        machines: for the busiest hour.
        price_a_month: of them; None without a price.
        is_within_trained_length: False if the model reads more positions than it was trained on.
    """

    method: str
    device_bytes_per_stream: float
    idle_bytes_per_session: float
    log_bytes: float
    slots: int
    tokens_per_second: float
    first_token_seconds: float
    seconds_per_turn: float
    replay_share: float
    machines: int
    price_a_month: float | None
    is_within_trained_length: bool

    def to_json(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return dict(vars(self))


def forecast(
    method: str, costs: ModelCosts, speed: Speed, work: Workload, machine: Machine
) -> Forecast:
    """Forecast one method.

    `sinks` keeps n + m entries of each session. `dense` keeps all of them. `resend` keeps none
    between turns: it reads the history again, as far as the trained length allows. `recompute`
    reads the last n + m tokens again for every token that it generates.

    Args:
        method: one of `METHODS`.
        costs: of a token.
        speed: of a machine with this model.
        work: of a day.
        machine: all are alike.

    Raises:
        CapacityError: the device does not hold the weights and one stream.
        ConfigError: the method has another name.
    """
    check_choice("method", method, METHODS)
    shape = _Shape(method, costs, work)
    room = machine.memory_bytes - costs.weight_bytes
    slots = min(machine.max_streams, math.floor(room / shape.device_bytes))
    if slots < 1:
        raise CapacityError(
            f"memory_bytes={machine.memory_bytes:.4g} does not hold the weights "
            f"({costs.weight_bytes:.4g} bytes) and a stream ({shape.device_bytes:.4g} bytes) under "
            f"{method}; choose a larger machine or a smaller cache"
        )
    machines = _machines(shape, speed, work, machine, slots)
    share = shape.replay_share(machine, work.sessions / machines, slots)
    price = machine.price_per_hour
    return Forecast(
        method=method,
        device_bytes_per_stream=shape.device_bytes,
        idle_bytes_per_session=shape.idle_bytes,
        log_bytes=work.sessions * work.history_tokens * LOG_BYTES_PER_TOKEN,
        slots=slots,
        tokens_per_second=1 / shape.step_seconds(speed, slots),
        first_token_seconds=shape.prompt_seconds(speed, share),
        seconds_per_turn=shape.turn_seconds(speed, slots, share),
        replay_share=share,
        machines=machines,
        price_a_month=None if price is None else machines * price * HOURS_A_MONTH,
        is_within_trained_length=shape.is_within(costs.trained_length),
    )


class _Shape:
    """Entries, bytes and seconds of a turn under one method."""

    def __init__(self, method: str, costs: ModelCosts, work: Workload) -> None:
        self.method, self._costs, self._work = method, costs, work
        self._history = work.history_tokens
        if method == "resend" and costs.trained_length is not None:
            most = costs.trained_length - work.prompt_tokens - work.answer_tokens
            self._history = max(0.0, min(self._history, most))
        length = self._history + work.prompt_tokens + work.answer_tokens / 2
        self._is_bounded = method in ("sinks", "recompute")
        self.entries = min(length, costs.cache_size) if self._is_bounded else length
        self.window = costs.cache_size if self._is_bounded else math.inf

    def _bytes(self, entries: float) -> float:
        if not self._is_bounded:
            return self._costs.bytes_per_entry * entries
        # Local layers keep fewer entries than n + m.
        nbytes = self._costs.cache_bytes * entries / self._costs.cache_size
        return nbytes + (self._costs.rewind_bytes if self.method == "sinks" else 0)

    @property
    def device_bytes(self) -> float:
        return self._bytes(self.entries)

    @property
    def idle_bytes(self) -> float:
        if self.method in ("resend", "recompute"):
            return 0.0
        return self._bytes(min(self._history, self.window))

    def is_within(self, trained_length: int | None) -> bool:
        return trained_length is None or self.entries <= trained_length

    def replay_share(self, machine: Machine, sessions: float, slots: int) -> float:
        """Return the share of sessions without keys and values, if all are as likely to speak."""
        if self.method in ("resend", "recompute"):
            return 1.0
        kept = slots + (machine.host_bytes + machine.disk_bytes) / max(1.0, self.idle_bytes)
        return max(0.0, 1 - kept / sessions)

    def step_seconds(self, speed: Speed, slots: int) -> float:
        if self.method == "recompute":
            return slots * speed.prefill(self.entries, 0, self.window)
        return speed.decode(slots, self.entries)

    def prompt_seconds(self, speed: Speed, replay_share: float) -> float:
        """Return the seconds until the first token: states, a replay, the prompt."""
        history, prompt = self._history, self._work.prompt_tokens
        if self.method == "resend":
            return speed.prefill(history + prompt, 0)
        if self.method == "recompute":
            return speed.prefill(self.entries, 0, self.window)
        entries = min(history, self.window)
        replay = speed.prefill(entries, 0, self.window)
        copies = (1 - replay_share) * 2 * speed.copy(self.idle_bytes)
        return replay_share * replay + copies + speed.prefill(prompt, entries, self.window)

    def turn_seconds(self, speed: Speed, slots: int, replay_share: float) -> float:
        """Return the seconds that a turn takes of a machine whose slots are busy."""
        answer = self._work.answer_tokens * self.step_seconds(speed, slots) / slots
        return self.prompt_seconds(speed, replay_share) + answer


def _machines(shape: _Shape, speed: Speed, work: Workload, machine: Machine, slots: int) -> int:
    """Return the least number of machines; more of them keep more states, hence the search."""

    def needed(machines: int) -> int:
        share = shape.replay_share(machine, work.sessions / machines, slots)
        seconds = work.turns_per_second * shape.turn_seconds(speed, slots, share)
        return max(1, math.ceil(seconds / machine.busy_share))

    low, high = 1, needed(1)
    while low < high:
        middle = (low + high) // 2
        if needed(middle) <= middle:
            high = middle
        else:
            low = middle + 1
    return low
