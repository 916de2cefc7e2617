"""What is timed: writing with a full cache, and reading a prompt into an empty one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.peers.contestants import OURS, Contestant
from benchmarks.peers.process import Process
from benchmarks.peers.programs.protocol import Settings
from benchmarks.peers.rounds import side_by_side
from benchmarks.peers.summary import decode_summary, reading_summary

READING_WINDOW = 1020


@dataclass
class Tasks:
    """Run the tasks and keep their figures.

    Args:
        contestants: who takes part.
        template: settings that all have in common.
        generator: draws the order of each round.

    Attributes:
        decode, reading: figures by window or prompt, then by contestant.
        failures: reasons by task, then by contestant.
    """

    contestants: Sequence[Contestant]
    template: Settings
    generator: random.Random
    decode: dict[str, dict[str, Any]] = field(default_factory=dict)
    reading: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def write_tokens(self, window_size: int, rounds: int, steps: int) -> None:
        """Time steps with a full cache."""

        def settings_of(contestant: Contestant) -> Settings:
            return self._settings(contestant, window_size)

        def fill(process: Process) -> None:
            process.ask("fill")

        def turn(process: Process, _: int) -> Any:
            return process.ask("decode", count=steps)

        task = f"window {window_size}"
        records, self.failures[task] = side_by_side(
            self.contestants, settings_of, fill, turn, rounds, task, self.generator
        )
        self.decode[str(window_size)] = decode_summary(records)

    def read_prompt(self, num_tokens: int, rounds: int) -> None:
        """Time the reading of a prompt: ours through its window, the others densely."""

        def settings_of(contestant: Contestant) -> Settings:
            dense_window = num_tokens - self.template.num_sink_tokens
            is_ours = contestant.program == OURS
            return self._settings(contestant, READING_WINDOW if is_ours else dense_window)

        def turn(process: Process, number: int) -> Any:
            # A text that no cache of prefixes has seen.
            return process.ask("read", tokens=self.template.text[number : number + num_tokens])

        task = f"prompt {num_tokens}"
        readers = [contestant for contestant in self.contestants if contestant.reads]
        records, self.failures[task] = side_by_side(
            readers, settings_of, lambda _: None, turn, rounds, task, self.generator
        )
        self.reading[str(num_tokens)] = reading_summary(records, num_tokens)

    def _settings(self, contestant: Contestant, window_size: int) -> Settings:
        return replace(
            self.template,
            weights=contestant.weights,
            rule=contestant.rule,
            window_size=window_size,
        )
