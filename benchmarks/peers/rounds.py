"""Rounds in which every contestant takes its turn, in an order drawn anew for each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.peers.contestants import Contestant, PeerError
from benchmarks.peers.conversions import convert_for
from benchmarks.peers.environments import python_of
from benchmarks.peers.process import Process
from benchmarks.peers.programs.protocol import Settings
from benchmarks.progress import shown

# Beginnings of the text, each to be continued.
CHECK_PROMPT_TOKENS = (8, 64, 128, 256)
CHECK_GREEDY_TOKENS = 8


@dataclass
class Record:
    """What one contestant did.

    Args:
        contestant: who.
        start_seconds: from starting its program to its model being ready.
        versions: of its packages.
        greedy_tokens: what it writes after each beginning of the text, its cache far from full.
        turns: result of each round.
        idle_processor_share: processor time between turns over the time that went by.
    """

    contestant: Contestant
    start_seconds: float
    versions: dict[str, str]
    greedy_tokens: list[list[int]]
    turns: list[Any] = field(default_factory=list)
    idle_processor_share: float = 0.0


def start(
    contestant: Contestant, settings: Settings, log_name: str, stack: ExitStack
) -> tuple[Process, Record]:
    """Start a contestant's program, with its environment and model in place.

    Args:
        contestant: who.
        settings: what it runs.
        log_name: name of its log.
        stack: ends the program.

    Raises:
        PeerError: it cannot be had or failed.
    """
    convert_for(contestant)
    python = python_of(contestant.program)
    began = time.perf_counter()
    process = Process(python, contestant.program, log_name, settings.threads)
    stack.enter_context(process)
    versions = process.ask("open", **asdict(settings))
    start_seconds = time.perf_counter() - began
    greedy = [
        process.ask("greedy", prompt=settings.text[:length], count=CHECK_GREEDY_TOKENS)
        for length in CHECK_PROMPT_TOKENS
    ]
    return process, Record(contestant, start_seconds, versions, greedy)


def take_turns(
    entries: Sequence[tuple[Process, Record]],
    turn: Callable[[Process, int], Any],
    rounds: int,
    description: str,
    generator: random.Random,
) -> dict[str, str]:
    """Let every entry take a turn per round, into its record; return who failed and why."""
    failures: dict[str, str] = {}
    for number in shown(range(rounds), description):
        for process, record in generator.sample(entries, len(entries)):
            name = record.contestant.name
            if name in failures:
                continue
            try:
                record.turns.append(turn(process, number))
            except PeerError as error:
                failures[name] = str(error)
            record.idle_processor_share = process.idle_processor_seconds / max(
                process.idle_wall_seconds, 1e-9
            )
    return failures


def side_by_side(
    contestants: Sequence[Contestant],
    settings_of: Callable[[Contestant], Settings],
    prepare: Callable[[Process], object],
    turn: Callable[[Process, int], Any],
    rounds: int,
    description: str,
    generator: random.Random,
) -> tuple[list[Record], dict[str, str]]:
    """Start all contestants, prepare them and let them take turns.

    Args:
        contestants: those that fail are left out.
        settings_of: what a contestant runs.
        prepare: asked once before the first round.
        turn: asked in each round, with its number.
        rounds: how many.
        description: for the progress bar and the logs.
        generator: draws the order of each round.

    Returns:
        the records of those who came through, and why the others did not, by name.
    """
    entries: list[tuple[Process, Record]] = []
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for contestant in shown(contestants, f"starting for {description}"):
            log_name = f"{contestant.name}-{description.replace(' ', '-')}"
            try:
                entry = start(contestant, settings_of(contestant), log_name, stack)
                prepare(entry[0])
                entries.append(entry)
            except PeerError as error:
                failures[contestant.name] = str(error)
        failures |= take_turns(entries, turn, rounds, description, generator)
    return [record for _, record in entries if record.contestant.name not in failures], failures
