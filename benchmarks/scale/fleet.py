"""Changes of the replicas: losses, replacements, drains, and what an autoscaler adds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["lose", "forget", "leave", "join"]


@dataclass(frozen=True)
class Change:
    """Describe one change of some replicas.

    Args:
        kind: `lose` ends them and their turns; `forget` takes them off the ring; `leave` takes them
            off the ring while their turns go on; `join` adds them, empty, under a new id.
        replicas: their numbers.
    """

    kind: Kind
    replicas: tuple[int, ...]


class Fleet(Protocol):
    """Decide which replicas there are."""

    first: tuple[int, ...]

    def changes(self, tick: int, ongoing: int) -> Iterable[Change]:
        """Return the changes of a tick, which are asked for tick by tick.

        Args:
            tick: now.
            ongoing: turns of all replicas, waiting ones included.
        """


class PlannedFleet:
    """Follow a plan.

    Args:
        replicas: at first.
        plan: changes by tick.
    """

    def __init__(self, replicas: int, plan: Iterable[tuple[int, Change]] = ()) -> None:
        self.first = tuple(range(replicas))
        self._plan: dict[int, list[Change]] = defaultdict(list)
        for tick, change in plan:
            self._plan[tick].append(change)

    def changes(self, tick: int, ongoing: int) -> Iterable[Change]:
        """Return what the plan has for a tick."""
        return self._plan.get(tick, ())


def loss(
    at: int, replicas: Iterable[int], detect_ticks: int, replace_ticks: int | None
) -> list[tuple[int, Change]]:
    """Plan the loss of replicas, its detection, and their replacement under new ids."""
    lost = tuple(replicas)
    plan = [(at, Change("lose", lost)), (at + detect_ticks, Change("forget", lost))]
    if replace_ticks is not None:
        plan.append((at + replace_ticks, Change("join", lost)))
    return plan


def rolling_restart(
    at: int, replicas: int, batch: int, every_ticks: int, away_ticks: int
) -> list[tuple[int, Change]]:
    """Plan the restart of all replicas, batch by batch; each drains, ends and joins anew."""
    plan = []
    for number, begin in enumerate(range(0, replicas, batch)):
        some = tuple(range(begin, min(replicas, begin + batch)))
        tick = at + number * every_ticks
        plan += [(tick, Change("leave", some)), (tick + away_ticks, Change("join", some))]
    return plan


class AutoscaledFleet:
    """Add replicas as Ray Serve's autoscaler does; none are taken away.

    Args:
        replicas: at first, and at most.
        target_ongoing: turns that a replica shall have.
        look_ticks: between two looks.
        delay_ticks: for which more replicas must be wanted before they are started.
        start_ticks: until a new replica takes turns.

    Source: Ray Serve's `AutoscalingConfig`: target_ongoing_requests, upscale_delay_s.
    """

    def __init__(
        self,
        replicas: tuple[int, int],
        target_ongoing: float,
        look_ticks: int,
        delay_ticks: int,
        start_ticks: int,
    ) -> None:
        self.first = tuple(range(replicas[0]))
        self._wanted, self._most = replicas
        self._target, self._look_ticks = target_ongoing, look_ticks
        self._delay_ticks, self._start_ticks = delay_ticks, start_ticks
        self._since: int | None = None
        self._joins: dict[int, tuple[int, ...]] = {}

    def changes(self, tick: int, ongoing: int) -> Iterable[Change]:
        """Return the replicas that take their first turns now, and look at the load."""
        if tick % self._look_ticks == 0:
            self._look(tick, ongoing)
        joining = self._joins.pop(tick, ())
        return [Change("join", joining)] if joining else []

    def _look(self, tick: int, ongoing: int) -> None:
        wanted = min(self._most, math.ceil(ongoing / self._target))
        if wanted <= self._wanted:
            self._since = None
            return
        self._since = tick if self._since is None else self._since
        if tick - self._since >= self._delay_ticks:
            self._joins[tick + self._start_ticks] = tuple(range(self._wanted, wanted))
            self._wanted, self._since = wanted, None
