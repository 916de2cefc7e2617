"""A store against a plain dict, through any sequence of calls."""

from __future__ import annotations

import shutil
import tempfile
from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamingllm.sessions import Message
from streamingllm.sessions.history_digest import history_digests
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import Snapshot, TurnCommit

OWNERS = st.sampled_from(["", "ada", "bob"])
GROUPS = st.sampled_from(["", "chat"])
WORDS = st.sampled_from(["cliff", "tower", "sea", "gull"])
TEXTS = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)
TURNS = st.lists(TEXTS, min_size=1, max_size=3)
SHARES = st.floats(0, 1)


@dataclass
class Model:
    """What a session should hold; each message has three token ids."""

    owner: str
    group: str
    messages: list[Message] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    epoch: int = 0
    snapshot: Snapshot | None = None
    parent: str | None = None


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.models: dict[str, Model] = {}
        self.num_made = 0
        self.open()

    def open(self) -> None:
        self.store = SqliteStore(
            self.folder / "sessions.db", snapshots=self.folder / "snapshots", is_exclusive=True
        )

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def new_id(self) -> str:
        self.num_made += 1
        return f"s{self.num_made}"

    def some(self, share: float) -> tuple[str, Model]:
        return list(self.models.items())[int(share * (len(self.models) - 1))]

    @rule(owner=OWNERS, group=GROUPS)
    def create(self, owner: str, group: str) -> None:
        session_id = self.new_id()
        assert self.store.create(session_id, owner=owner, group=group) == 0
        self.models[session_id] = Model(owner, group)

    @precondition(lambda self: self.models)
    @rule(which=SHARES, kept=SHARES, texts=TURNS)
    def commit(self, which: float, kept: float, texts: list[str]) -> None:
        session_id, model = self.some(which)
        stay = round(kept * len(model.messages))
        said = tuple(
            replace(Message.of_text("user", text), first=3 * n, stop=3 * n + 3)
            for n, text in enumerate(texts, start=stay)
        )
        ids = array("I", range(model.epoch, model.epoch + 3 * len(said)))
        turn = TurnCommit(stay, 3 * stay, said, ids)
        model.epoch = self.store.commit_turn(session_id, model.epoch, turn)
        model.messages[stay:], model.ids[3 * stay :] = said, ids
        if model.snapshot is not None and model.snapshot.num_tokens > 3 * stay:
            model.snapshot = None

    @precondition(lambda self: self.models)
    @rule(which=SHARES, seen=SHARES)
    def put_snapshot(self, which: float, seen: float) -> None:
        session_id, model = self.some(which)
        model.snapshot = Snapshot(round(seen * len(model.ids)), f"{session_id} {seen}".encode())
        self.store.put_snapshot(session_id, model.epoch, model.snapshot)

    @precondition(lambda self: self.models)
    @rule(which=SHARES, kept=SHARES)
    def fork(self, which: float, kept: float) -> None:
        session_id, model = self.some(which)
        stay, new_id = round(kept * len(model.messages)), self.new_id()
        self.store.fork(session_id, model.owner, new_id, stay, 3 * stay, settings={})
        self.models[new_id] = Model(
            model.owner,
            model.group,
            model.messages[:stay],
            model.ids[: 3 * stay],
            parent=session_id,
        )

    @precondition(lambda self: self.models)
    @rule(which=SHARES)
    def delete(self, which: float) -> None:
        session_id, model = self.some(which)
        self.store.delete(session_id, model.owner)
        del self.models[session_id]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule(owner=OWNERS, word=WORDS)
    def search(self, owner: str, word: str) -> None:
        expected = {
            session_id
            for session_id, model in self.models.items()
            if model.owner == owner and any(word in said.text for said in model.messages)
        }
        assert {summary.id for summary in self.store.list(owner, query=word)} == expected

    @precondition(lambda self: self.models)
    @rule(which=SHARES, kept=SHARES, more=st.lists(TEXTS, max_size=2), owner=OWNERS, group=GROUPS)
    def find_prefix(
        self, which: float, kept: float, more: list[str], owner: str, group: str
    ) -> None:
        _, model = self.some(which)
        history = [said.text for said in model.messages][: round(kept * len(model.messages))]
        history += more
        digests = history_digests(Message.of_text("user", text) for text in history)
        common = {
            session_id: num_common(history, other.messages)
            for session_id, other in self.models.items()
            if (other.owner, other.group) == (owner, group)
        }
        longest = max(common.values(), default=0)
        expected = {(i, longest) for i, length in common.items() if length == longest > 0}
        found = self.store.find_prefix(owner, digests, group)
        assert set(found) <= expected
        assert len(found) == min(len(expected), 8)

    @rule(owner=OWNERS, limit=st.integers(1, 3))
    def pages(self, owner: str, limit: int) -> None:
        listed, after = [], None
        while page := self.store.list(owner, limit=limit, after=after):
            listed += [summary.id for summary in page]
            after = page[-1].cursor
        expected = {i for i, model in self.models.items() if model.owner == owner}
        assert len(listed) == len(set(listed))
        assert set(listed) == expected

    @invariant()
    def holds_what_it_should(self) -> None:
        assert self.store.count() == len(self.models)
        for session_id, model in self.models.items():
            found = self.store.get(session_id, model.owner)
            assert [*found.transcript] == model.messages
            assert [*found.token_log] == model.ids
            assert self.store.get_snapshot(session_id) == model.snapshot
            assert (found.summary.epoch, found.summary.parent_id) == (model.epoch, model.parent)
        files = [*(self.folder / "snapshots").iterdir()]
        assert len(files) == sum(model.snapshot is not None for model in self.models.values())


def num_common(history: list[str], messages: list[Message]) -> int:
    """Length of the part that both begin with."""
    for number, (text, said) in enumerate(zip(history, messages, strict=False)):
        if text != said.text:
            return number
    return min(len(history), len(messages))


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
