"""Simulate a crowd over replicas: events by tick, all events of a tick in arrays.

A tick is: changes of the fleet; progress of running turns; ends; restores that are done; arrivals;
starts. Sessions of a tick are taken in the order of their numbers. Queues are served in order of
arrival. Streams of a replica decode in one batch, so that each gains the same tokens.
tests/benchmarks/scale/plain.py has the same rules, one session and one event at a time.
"""

from __future__ import annotations

import numpy as np

from benchmarks.scale.calendar import Calendar
from benchmarks.scale.crowd import Crowd
from benchmarks.scale.draws import Integers
from benchmarks.scale.fleet import Change, Fleet
from benchmarks.scale.grouping import Queues, ranks
from benchmarks.scale.machines import MICRO, Replica, Store, micros
from benchmarks.scale.placement import Placement, Replicas
from benchmarks.scale.records import Log
from benchmarks.scale.sessions import AWAY, CUT, RESTORING, RUNNING, WAITING, Sessions

SAMPLE_TICKS = 25
_NOBODY: Integers = np.empty(0, dtype=np.int64)


class Simulation:
    """Hold a crowd, its replicas and their store between two ticks.

    Args:
        crowd: that talks.
        replica: each of them.
        store: of states and turns.
        placement: of sessions on replicas; its members are set here.
        fleet: the replicas, over time.
        max_replicas: numbers that a fleet may use.
        seconds: that are simulated.
        tick_seconds: of a tick.
        seed: of all draws.
    """

    def __init__(
        self, crowd: Crowd, replica: Replica, store: Store, placement: Placement, fleet: Fleet,
        *, max_replicas: int, seconds: float, tick_seconds: float = 0.1, seed: int = 0,
    ) -> None:  # fmt: skip
        self.crowd, self.replica, self.store, self.seed = crowd, replica, store, seed
        self._placement, self._fleet = placement, fleet
        self.tick_seconds, self.tick_micros = tick_seconds, round(MICRO * tick_seconds)
        self.num_ticks = round(seconds / tick_seconds)
        self.log = Log()
        self.gained = replica.tokens_per_tick(tick_seconds)
        self._idle_ticks = round(replica.idle_seconds / tick_seconds)
        self._detect_ticks = round(replica.detect_seconds / tick_seconds)
        self._restore_micros = micros(replica.restore_seconds, 1)
        size = replica.state_bytes
        self._links = Queues(max_replicas, micros(size, replica.link_bytes_per_second))
        self._reads = Queues(1, micros(size, store.read_bytes_per_second))
        self._writes = Queues(1, micros(store.checkpoint_bytes, store.write_bytes_per_second))
        self._commits = Queues(1, micros(1, store.commits_per_second))
        self.is_alive = np.zeros(max_replicas, dtype=bool)
        self.life = np.zeros(max_replicas, dtype=np.int32)
        self.busy = np.zeros(max_replicas, dtype=np.int64)
        self.ongoing = np.zeros(max_replicas, dtype=np.int64)
        self._gained_total = np.zeros(max_replicas, dtype=np.int64)
        self._members: dict[int, int] = {}
        self._generations: dict[int, int] = {}
        self._forgotten_at = np.zeros(max_replicas, dtype=np.int64)
        self.sessions = Sessions(crowd.sessions)
        self.calendar = Calendar(self.num_ticks)
        self.waiting, self.running = _NOBODY, _NOBODY
        self._targets = _NOBODY
        first = np.ceil(crowd.first_seconds(seed) / tick_seconds).astype(np.int64)
        self.calendar.push(first, np.arange(crowd.sessions))
        self._change(0, Change("join", fleet.first))

    def run(self) -> Log:
        """Simulate all ticks."""
        for tick in range(self.num_ticks):
            self.step(tick)
        return self.log

    def step(self, tick: int) -> None:
        """Simulate one tick; every few of them, take a sample."""
        for change in self._fleet.changes(tick, int(self.ongoing.sum())):
            self._change(tick, change)
        self._gained_total += self.gained[self.busy]
        self._finish(tick)
        due = self.calendar.pop(tick)
        s = self.sessions
        is_restored = s.phase[due] == RESTORING
        lives_on = s.life[due] == self.life[s.where[due]]
        ready, orphans = due[is_restored & lives_on], due[is_restored & ~lives_on]
        s.phase[orphans] = CUT
        self.log.counts.cut += len(orphans)
        resident = self._arrive(tick, due[~is_restored | ~lives_on])
        s.phase[ready] = WAITING
        self.waiting = np.concatenate([self.waiting, ready, resident])
        self._start(tick)
        if tick % SAMPLE_TICKS == 0:
            self._sample(tick)

    def _change(self, tick: int, change: Change) -> None:
        replicas = np.array(change.replicas, dtype=np.int64)
        if change.kind in ("lose", "join"):
            self._lose(tick, replicas[self.is_alive[replicas]])
        if change.kind == "lose":
            self._forgotten_at[replicas] = tick + self._detect_ticks
            return
        for replica in change.replicas:
            if change.kind == "join":
                self._members[replica] = self._generations.get(replica, 0)
                self._generations[replica] = self._members[replica] + 1
            else:
                self._members.pop(replica, None)
        self.is_alive[replicas] |= change.kind == "join"
        self._placement.set_members(self._members)

    def _lose(self, tick: int, replicas: Integers) -> None:
        if not len(replicas):
            return
        s = self.sessions
        self.life[replicas] += 1
        self.is_alive[replicas] = False
        runs = np.isin(s.where[self.running], replicas)
        waits = np.isin(s.where[self.waiting], replicas)
        lost = self.running[runs]
        begun = self._targets[runs] - s.work[lost]
        self.log.counts.wasted_micro_tokens += int(
            (self._gained_total[s.where[lost]] - begun).sum()
        )
        cut = np.concatenate([lost, self.waiting[waits]])
        self.running, self._targets = self.running[~runs], self._targets[~runs]
        self.waiting = self.waiting[~waits]
        s.phase[cut] = CUT
        self.log.counts.cut += len(cut)
        self.busy[replicas] = 0
        self.ongoing[replicas] = 0
        self.calendar.push(np.full(len(cut), tick + self._detect_ticks), cut)

    def _finish(self, tick: int) -> None:
        s = self.sessions
        is_done = self._targets <= self._gained_total[s.where[self.running]]
        if not is_done.any():
            return
        done = np.sort(self.running[is_done])
        self.running, self._targets = self.running[~is_done], self._targets[~is_done]
        where = s.where[done]
        self.busy -= np.bincount(where, minlength=len(self.busy))
        self.ongoing -= np.bincount(where, minlength=len(self.busy))
        s.turn[done] += 1
        s.phase[done] = AWAY
        s.leave_home(done)
        s.home[done], s.home_life[done], s.touched[done] = where, self.life[where], tick
        self.log.counts.finished += len(done)
        self.log.add_turns(
            session=done, turn=s.turn[done], replica=where.astype(np.int64),
            arrived=s.arrived[done], started=s.started[done],
            finished=np.full(len(done), tick), running=s.batch[done],
            prompt_micro=s.prompt_micro[done], restored=s.restored[done],
        )  # fmt: skip
        now = tick * self.tick_micros
        nowhere = np.zeros(len(done), dtype=np.int64)
        acknowledged = np.maximum(
            self._writes.serve(now, nowhere), self._commits.serve(now, nowhere)
        )
        pause = self.crowd.pause_seconds(self.seed, done, s.turn[done].astype(np.int64))
        back = tick + np.ceil(pause / self.tick_seconds).astype(np.int64)
        self.calendar.push(np.maximum(back, self._tick_after(acknowledged)), done)

    def _tick_after(self, at: Integers) -> Integers:
        return -(-at // self.tick_micros)

    def _arrive(self, tick: int, arriving: Integers) -> Integers:
        """Place turns, begin restores, and return the sessions whose state is resident."""
        if not len(arriving):
            return arriving
        s, counts = self.sessions, self.log.counts
        is_new = s.phase[arriving] == AWAY
        s.arrived[arriving[is_new]] = tick
        counts.arrivals += int(is_new.sum())
        where = self._placement.place(arriving, self.ongoing)
        is_dead = (where < 0) | ~self.is_alive[where]
        if is_dead.any():
            self._send_back(tick, arriving[is_dead], where[is_dead])
            arriving, where = arriving[~is_dead], where[~is_dead]
        s.where[arriving], s.life[arriving] = where, self.life[where]
        self.ongoing += np.bincount(where, minlength=len(self.ongoing))
        counts.takeovers += int(((s.home[arriving] != where) & (s.home[arriving] >= 0)).sum())
        counts.stale_states += s.num_stale(arriving, self.life, tick - self._idle_ticks)
        is_here = s.is_resident(arriving, self.life, tick - self._idle_ticks)
        resident, others = arriving[is_here], arriving[~is_here]
        s.restored[resident], s.restored[others] = False, True
        counts.restores += len(others)
        if self.store.restore == "replay":
            s.phase[arriving] = WAITING
            return arriving
        s.phase[resident], s.phase[others] = WAITING, RESTORING
        now = tick * self.tick_micros
        read = self._reads.serve(now, np.zeros(len(others), dtype=np.int64))
        copied = self._links.serve(now, s.where[others])
        done = self._tick_after(np.maximum(read, copied) + self._restore_micros)
        self.calendar.push(np.maximum(done, tick + 1), others)
        return resident

    def _send_back(self, tick: int, sessions: Integers, where: Replicas) -> None:
        """Let turns return when their dead replica is off the ring."""
        self.sessions.phase[sessions] = CUT
        self.log.counts.dead_ends += len(sessions)
        off = np.where(where < 0, tick + self._detect_ticks, self._forgotten_at[where])
        self.calendar.push(np.maximum(off, tick + 1), sessions)

    def _start(self, tick: int) -> None:
        s = self.sessions
        where = s.where[self.waiting]
        free = (self.replica.slots - self.busy)[where]
        may = np.flatnonzero(free > 0)
        if not len(may):
            return
        chosen = may[ranks(where[may]) < free[may]]
        starting, where = self.waiting[chosen], where[chosen].astype(np.int64)
        self.waiting = np.delete(self.waiting, chosen)
        self.busy += np.bincount(where, minlength=len(self.busy))
        s.phase[starting], s.started[starting] = RUNNING, tick
        s.batch[starting] = self.busy[where]
        prompt = np.full(len(starting), self.crowd.prompt_tokens)
        if self.store.restore == "replay":
            prompt += self.store.replay_tokens * s.restored[starting]
        s.prompt_micro[starting] = np.rint(MICRO * self.replica.prompt_weight * prompt)
        answers = self.crowd.answers(self.seed, starting, s.turn[starting].astype(np.int64))
        s.work[starting] = s.prompt_micro[starting] + MICRO * answers
        self.running = np.concatenate([self.running, starting])
        targets = self._gained_total[where] + s.work[starting]
        self._targets = np.concatenate([self._targets, targets])

    def _sample(self, tick: int) -> None:
        now = tick * self.tick_micros
        counts = self.log.counts
        self.log.samples.append({
            "seconds": tick * self.tick_seconds,
            "members": len(self._members),
            "running": len(self.running),
            "waiting": len(self.waiting),
            "ongoing": int(self.ongoing.sum()),
            "ongoing_most": int(self.ongoing.max()),
            "read_backlog_seconds": self._reads.backlog(now) / MICRO,
            "link_backlog_seconds": self._links.backlog(now) / MICRO,
            "write_backlog_seconds": self._writes.backlog(now) / MICRO,
            "commit_backlog_seconds": self._commits.backlog(now) / MICRO,
            "restores": counts.restores,
            "arrivals": counts.arrivals,
            "finished": counts.finished,
            "cut": counts.cut,
        })  # fmt: skip
