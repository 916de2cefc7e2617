from __future__ import annotations

import subprocess
import sys
from array import array
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from streamingllm.errors import InputError
from streamingllm.sessions.token_log import TokenLog, ids_from_bytes, ids_to_bytes

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=8)


class Logs(RuleBasedStateMachine):
    """Logs that fork each other, each beside the plain list that it should equal."""

    logs = Bundle("logs")

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[TokenLog, list[int]]] = []

    @rule(target=logs, ids=IDS)
    def begin(self, ids: list[int]) -> Any:
        self.all.append((TokenLog(ids), list(ids)))
        return self.all[-1]

    @rule(pair=logs, ids=IDS)
    def extend(self, pair: tuple[TokenLog, list[int]], ids: list[int]) -> None:
        pair[0].extend(ids)
        pair[1].extend(ids)

    @rule(target=logs, pair=logs)
    def fork(self, pair: tuple[TokenLog, list[int]]) -> Any:
        self.all.append((pair[0].fork(), list(pair[1])))
        return self.all[-1]

    @rule(pair=logs, data=st.data())
    def truncate(self, pair: tuple[TokenLog, list[int]], data: st.DataObject) -> None:
        length = data.draw(st.integers(0, len(pair[1])))
        pair[0].truncate(length)
        del pair[1][length:]

    @rule(pair=logs, first=st.integers(-20, 40), stop=st.integers(-20, 40))
    def slice(self, pair: tuple[TokenLog, list[int]], first: int, stop: int) -> None:
        assert pair[0][first:stop].tolist() == pair[1][first:stop]

    @rule(pair=logs, first=st.integers(0, 40), max_tokens=st.integers(1, 9))
    def chunk(self, pair: tuple[TokenLog, list[int]], first: int, max_tokens: int) -> None:
        chunks = [*pair[0].chunks(first, max_tokens)]
        assert [i for chunk in chunks for i in chunk] == pair[1][first:]
        assert all(1 <= len(chunk) <= max_tokens for chunk in chunks)

    @rule(target=logs, pair=consumes(logs))
    def close(self, pair: tuple[TokenLog, list[int]]) -> Any:
        self.all.remove(pair)
        return multiple()

    @invariant()
    def equal_their_models(self) -> None:
        for log, model in self.all:
            assert len(log) == len(model)
            assert list(log) == model
            for position in range(-len(model), len(model)):
                assert log.at(position) == model[position]


Logs.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestLogs = Logs.TestCase


def test_a_fork_copies_nothing() -> None:
    log = TokenLog(range(100_000))
    forks = [log.fork() for _ in range(1000)]
    own = [fork._log._items for fork in forks]
    assert all(len(items) == 0 for items in own)
    segments = {id(fork._log._parent) for fork in forks}
    assert len(segments) == 1


@pytest.mark.parametrize("position", [3, -4])
def test_positions_out_of_range(position: int) -> None:
    with pytest.raises(IndexError, match=f"position={position} is out of range"):
        TokenLog([1, 2, 3]).at(position)


def test_what_no_log_takes() -> None:
    log = TokenLog([1, 2, 3])
    with pytest.raises(InputError, match="32-bit token id"):
        log.extend([4, -1])
    with pytest.raises(InputError, match="length=4 is not 0 to 3"):
        log.truncate(4)
    with pytest.raises(InputError, match="step=2"):
        log[::2]
    assert list(log) == [1, 2, 3]


def test_ids_are_packed_alike_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids_to_bytes([1, 2**32 - 2]) == b"\1\0\0\0\xfe\xff\xff\xff"
    assert ids_from_bytes(b"\1\0\0\0\xfe\xff\xff\xff") == array("I", [1, 2**32 - 2])
    with pytest.raises(InputError, match="5 bytes"):
        ids_from_bytes(b"12345")


@pytest.mark.parametrize("module", ["token_log", "transcript", "visibility"])
def test_sessions_need_no_torch(module: str) -> None:
    code = f"import sys, streamingllm.sessions.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
