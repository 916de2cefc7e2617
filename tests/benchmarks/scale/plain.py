"""The rules of the simulation, one session and one event at a time, in plain Python."""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.scale.crowd import Crowd
from benchmarks.scale.fleet import Change, Fleet
from benchmarks.scale.machines import Replica, Store

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
GAP, STAYS, THINK, ANGLE, ANSWER, WAVE, IN_WAVE = range(1, 8)


def mixed(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def draw(seed: int, purpose: int, session: int, turn: int) -> float:
    x = mixed((seed * GOLDEN + purpose) & MASK)
    x = mixed((x + session * GOLDEN) & MASK)
    x = mixed((x + turn * GOLDEN) & MASK)
    return ((x >> 12) + 0.5) / 2**52


def murmur(key: bytes) -> int:
    """MurmurHash3_x64_128 of at most 15 bytes, under Ray's seed: the first half."""

    def rotated(x: int, by: int) -> int:
        return ((x << by) | (x >> (64 - by))) & MASK

    def final(x: int) -> int:
        x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & MASK
        x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
        return x ^ (x >> 33)

    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = 0xF9B4CA77
    k1, k2 = (int.from_bytes(part, "little") for part in (key[:8], key[8:]))
    h2 ^= (rotated((k2 * c2) & MASK, 33) * c1) & MASK
    h1 ^= (rotated((k1 * c1) & MASK, 31) * c2) & MASK
    h1, h2 = h1 ^ len(key), h2 ^ len(key)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    return (final(h1) + final(h2)) & MASK


class PlainRing:
    def __init__(self, virtual_nodes: int) -> None:
        self.virtual_nodes = virtual_nodes
        self.places: list[tuple[int, int]] = []

    def set_members(self, members: dict[int, int]) -> None:
        self.places = sorted(
            (murmur(f"{replica:04d}g{generation:03d}:{k}".encode()), replica)
            for replica, generation in members.items()
            for k in range(self.virtual_nodes)
        )

    def walk(self, session: int) -> list[int]:
        """Distinct replicas, clockwise."""
        at = bisect.bisect_right(self.places, (murmur(f"s{session:09d}".encode()), 1 << 20))
        found: dict[int, None] = {}
        for k in range(len(self.places)):
            found[self.places[(at + k) % len(self.places)][1]] = None
        return list(found)

    def choose(self, sessions: list[int], ongoing: dict[int, int]) -> list[int]:
        return [next(iter(self.walk(session)), -1) for session in sessions]


class PlainBoundedRing(PlainRing):
    def __init__(self, virtual_nodes: int, excess: float, successors: int) -> None:
        super().__init__(virtual_nodes)
        self.excess, self.successors = excess, successors

    def choose(self, sessions: list[int], ongoing: dict[int, int]) -> list[int]:
        members = {replica for _, replica in self.places}
        total = sum(ongoing.get(replica, 0) for replica in members) + len(sessions)
        bound = math.ceil((1 + self.excess) * total / len(members)) if members else 0
        found = []
        for session in sessions:
            tried = self.walk(session)[: self.successors]
            room = [replica for replica in tried if ongoing.get(replica, 0) < bound]
            found.append((room or tried or [-1])[0])
        return found


@dataclass
class Session:
    phase: str = "away"
    turn: int = 0
    arrived: int = 0
    started: int = 0
    batch: int = 0
    where: int = -1
    life: int = 0
    restored: bool = False
    home: tuple[int, int, int] | None = None  # replica, its life, tick
    left: tuple[int, int, int] | None = None
    work: int = 0
    prompt: int = 0
    gained: int = 0


@dataclass
class Machine:
    alive: bool = False
    life: int = 0
    forgotten_at: int = 0
    queue: deque[int] = field(default_factory=deque)
    running: list[int] = field(default_factory=list)
    restoring: set[int] = field(default_factory=set)
    link_free: int = 0

    @property
    def ongoing(self) -> int:
        return len(self.queue) + len(self.running) + len(self.restoring)


def micros(amount: float, per_second: float) -> int:
    return round(1_000_000 * amount / per_second)


class Plain:
    def __init__(
        self, crowd: Crowd, replica: Replica, store: Store, placement: PlainRing, fleet: Fleet,
        *, max_replicas: int, seconds: float, tick_seconds: float, seed: int,
    ) -> None:  # fmt: skip
        self.crowd, self.replica, self.store = crowd, replica, store
        self.placement, self.fleet, self.seed = placement, fleet, seed
        self.tick_seconds, self.tick_micros = tick_seconds, round(1e6 * tick_seconds)
        self.num_ticks = round(seconds / tick_seconds)
        self.machines = [Machine() for _ in range(max_replicas)]
        self.sessions = [Session() for _ in range(crowd.sessions)]
        self.events: list[tuple[int, int]] = []
        self.members: dict[int, int] = {}
        self.generations: dict[int, int] = {}
        self.read_free = self.write_free = self.commit_free = 0
        self.turns: list[tuple[int, ...]] = []
        self.counts = dict.fromkeys(
            ("arrivals", "finished", "cut", "restores", "takeovers", "stale_states"), 0
        )
        self.counts |= {"wasted_micro_tokens": 0, "dead_ends": 0}
        for number in range(crowd.sessions):
            self.push(math.ceil(self.first_seconds(number) / tick_seconds), number)
        self.change(0, Change("join", fleet.first))

    def draw(self, purpose: int, session: int, turn: int) -> float:
        return draw(self.seed, purpose, session, turn)

    def first_seconds(self, number: int) -> float:
        wave = self.crowd.wave
        if wave is not None and self.draw(IN_WAVE, number, 0) < wave.share:
            return wave.begin_seconds + self.draw(WAVE, number, 0) * wave.length_seconds
        return -self.crowd.gap_seconds * math.log(self.draw(GAP, number, 0))

    def push(self, tick: int, session: int) -> None:
        if tick < self.num_ticks:
            heapq.heappush(self.events, (tick, session))

    def run(self) -> None:
        for tick in range(self.num_ticks):
            for change in self.fleet.changes(tick, sum(m.ongoing for m in self.machines)):
                self.change(tick, change)
            self.progress(tick)
            arriving, ready = [], []
            while self.events and self.events[0][0] == tick:
                number = heapq.heappop(self.events)[1]
                session = self.sessions[number]
                machine = self.machines[session.where]
                if session.phase == "restoring" and session.life == machine.life:
                    ready.append(number)
                    continue
                if session.phase == "restoring":
                    session.phase = "cut"
                    self.counts["cut"] += 1
                arriving.append(number)
            resident = self.arrive(tick, arriving)
            for number in ready:
                self.machines[self.sessions[number].where].restoring.remove(number)
            for number in ready + resident:
                self.sessions[number].phase = "waiting"
                self.machines[self.sessions[number].where].queue.append(number)
            self.start(tick)

    def change(self, tick: int, change: Change) -> None:
        for number in change.replicas:
            machine = self.machines[number]
            if change.kind in ("lose", "join") and machine.alive:
                self.lose(tick, machine)
            if change.kind == "lose":
                machine.forgotten_at = tick + round(self.replica.detect_seconds / self.tick_seconds)
            elif change.kind == "join":
                self.members[number] = self.generations.get(number, 0)
                self.generations[number] = self.members[number] + 1
                machine.alive = True
            else:
                self.members.pop(number, None)
        if change.kind != "lose":
            self.placement.set_members(self.members)

    def lose(self, tick: int, machine: Machine) -> None:
        machine.alive = False
        machine.life += 1
        self.counts["wasted_micro_tokens"] += sum(self.sessions[n].gained for n in machine.running)
        again = tick + round(self.replica.detect_seconds / self.tick_seconds)
        for number in [*machine.running, *machine.queue]:
            self.sessions[number].phase = "cut"
            self.counts["cut"] += 1
            self.push(again, number)
        machine.running, machine.queue, machine.restoring = [], deque(), set()

    def progress(self, tick: int) -> None:
        done = []
        for machine in self.machines:
            if not machine.running:
                continue
            gained = self.tokens_of_a_tick(len(machine.running))
            for number in machine.running:
                self.sessions[number].gained += gained
            ended = [n for n in machine.running if self.sessions[n].gained >= self.sessions[n].work]
            machine.running = [n for n in machine.running if n not in ended]
            done += ended
        for number in sorted(done):
            self.end(tick, number)

    def tokens_of_a_tick(self, streams: int) -> int:
        known = sorted(self.replica.step_seconds.items())
        for (low, fast), (high, slow) in pairwise(known):
            if low <= streams <= high:
                step = fast + (slow - fast) * (streams - low) / (high - low)
                return round(1e6 * self.tick_seconds / step)
        assert streams == known[0][0]
        return round(1e6 * self.tick_seconds / known[0][1])

    def end(self, tick: int, number: int) -> None:
        session = self.sessions[number]
        session.turn += 1
        session.phase = "away"
        self.counts["finished"] += 1
        if session.home is not None and session.home[0] != session.where:
            session.left = session.home
        session.home = (session.where, self.machines[session.where].life, tick)
        times = (session.arrived, session.started, tick)
        cost = (session.batch, session.prompt, int(session.restored))
        self.turns.append((number, session.turn, session.where, *times, *cost))
        now = tick * self.tick_micros
        store = self.store
        self.write_free = max(self.write_free, now)
        self.write_free += micros(store.checkpoint_bytes, store.write_bytes_per_second)
        self.commit_free = max(self.commit_free, now) + micros(1, store.commits_per_second)
        acknowledged = math.ceil(max(self.write_free, self.commit_free) / self.tick_micros)
        back = tick + math.ceil(self.pause(number, session.turn) / self.tick_seconds)
        self.push(max(back, acknowledged), number)

    def pause(self, number: int, turn: int) -> float:
        if self.draw(STAYS, number, turn) < 1 / self.crowd.turns_of_a_visit:
            return max(1.0, -self.crowd.gap_seconds * math.log(self.draw(GAP, number, turn)))
        size, angle = self.draw(THINK, number, turn), self.draw(ANGLE, number, turn)
        normal = math.sqrt(-2 * math.log(size)) * math.cos(2 * math.pi * angle)
        return max(1.0, self.crowd.think_seconds * math.exp(self.crowd.think_sigma * normal))

    def arrive(self, tick: int, arriving: list[int]) -> list[int]:
        resident = []
        idle = round(self.replica.idle_seconds / self.tick_seconds)
        ongoing = {k: machine.ongoing for k, machine in enumerate(self.machines)}
        detect = round(self.replica.detect_seconds / self.tick_seconds)
        chosen = self.placement.choose(arriving, ongoing)
        now = tick * self.tick_micros
        for number, where in zip(arriving, chosen, strict=True):
            session = self.sessions[number]
            if session.phase == "away":
                session.arrived = tick
                self.counts["arrivals"] += 1
            if where < 0 or not self.machines[where].alive:
                session.phase = "cut"
                self.counts["dead_ends"] += 1
                off = tick + detect if where < 0 else self.machines[where].forgotten_at
                self.push(max(off, tick + 1), number)
                continue
            machine = self.machines[where]
            session.where, session.life = where, machine.life

            def holds(
                place: tuple[int, int, int] | None, at: int = where, life: int = machine.life
            ) -> bool:
                return place is not None and place[:2] == (at, life) and place[2] > tick - idle

            self.counts["takeovers"] += session.home is not None and session.home[0] != where
            is_moved = session.home is None or session.home[0] != where
            self.counts["stale_states"] += is_moved and holds(session.left)
            session.restored = not holds(session.home)
            self.counts["restores"] += session.restored
            if not session.restored or self.store.restore == "replay":
                resident.append(number)
                continue
            session.phase = "restoring"
            machine.restoring.add(number)
            size = self.replica.state_bytes
            self.read_free = max(self.read_free, now)
            self.read_free += micros(size, self.store.read_bytes_per_second)
            machine.link_free = max(machine.link_free, now)
            machine.link_free += micros(size, self.replica.link_bytes_per_second)
            ready = max(self.read_free, machine.link_free) + micros(self.replica.restore_seconds, 1)
            self.push(max(math.ceil(ready / self.tick_micros), tick + 1), number)
        return resident

    def start(self, tick: int) -> None:
        for machine in self.machines:
            before = len(machine.running)
            while machine.queue and len(machine.running) < self.replica.slots:
                machine.running.append(machine.queue.popleft())
            for number in machine.running[before:]:
                session = self.sessions[number]
                session.phase, session.started, session.gained = "running", tick, 0
                session.batch = len(machine.running)
                tokens = self.crowd.prompt_tokens
                if self.store.restore == "replay" and session.restored:
                    tokens += self.store.replay_tokens
                full = self.replica.slots / self.replica.step_seconds[self.replica.slots]
                weight = full / self.replica.prefill_tokens_per_second
                session.prompt = round(1_000_000 * weight * tokens)
                mean = self.crowd.answer_tokens
                answer = math.ceil(-mean * math.log(self.draw(ANSWER, number, session.turn)))
                session.work = session.prompt + 1_000_000 * min(max(answer, 1), int(20 * mean))
