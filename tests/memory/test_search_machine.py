"""Drive a memory and its plain twin by the same calls."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from streamingllm.memory import Memory, MemorySettings
from tests.memory.plain_memory import PlainMemory

WORDS = ["cat", "dog", "elm", "fig", "gnu", "hat", "ink", "jug"]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
sessions = st.sampled_from(["a", "b"])


class MemoryMachine(RuleBasedStateMachine):
    """Append, forget, reopen and search two sessions of one file."""

    @initialize(
        window=st.integers(1, 6),
        stride=st.integers(1, 6),
        k1=st.sampled_from([0.0, 1.2]),
        b=st.sampled_from([0.0, 0.5, 1.0]),
    )
    def start(self, window: int, stride: int, k1: float, b: float) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.settings = MemorySettings(
            window_pieces=window, stride_pieces=min(stride, window), k1=k1, b=b
        )
        self.memory = Memory(Path(self.folder.name, "memory.db"), self.settings)
        self.plain = {name: PlainMemory(self.settings) for name in ("a", "b")}
        self.count = 0

    def teardown(self) -> None:
        self.memory.close()
        self.folder.cleanup()

    @rule(session=sessions, text=texts, role=st.sampled_from(["user", "assistant"]))
    def append(self, session: str, text: str, role: str) -> None:
        self.count += 1
        message_id = f"m{self.count}"
        self.memory.append(session, role, text, message_id=message_id, time=0.0)
        self.plain[session].append(message_id, role, text)

    @rule(session=sessions, number=st.integers(1, 30))
    def forget(self, session: str, number: int) -> None:
        self.memory.forget(session, [f"m{number}"])
        self.plain[session].forget(f"m{number}")

    @rule(session=sessions)
    def forget_session(self, session: str) -> None:
        self.memory.forget_session(session)
        self.plain[session] = PlainMemory(self.settings)

    @rule()
    def reopen(self) -> None:
        self.memory.close()
        self.memory = Memory(Path(self.folder.name, "memory.db"), self.settings)

    @rule(session=sessions, query=texts)
    def search(self, session: str, query: str) -> None:
        found = self.memory.search(session, query, 100_000)
        wanted = self.plain[session].scores(query)
        assert {piece.message_id: piece.score for piece in found} == pytest.approx(wanted)
        assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)


MemoryMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestMemoryMachine = MemoryMachine.TestCase
