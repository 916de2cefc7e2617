from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamingllm.errors import InputError
from streamingllm.sessions import Message
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.store import TurnCommit


def say(store: SqlStore, session_id: str, *texts: str, owner: str = "", keep: int = 0) -> None:
    if keep == 0:
        store.create(session_id, owner=owner)
    epoch = store.summary(session_id).epoch
    said = tuple(Message.of_text("user", text) for text in texts)
    store.commit_turn(session_id, epoch, TurnCommit(keep, 0, said, array("I")))


def found(store: SqlStore, query: str, owner: str = "") -> list[str]:
    return sorted(summary.id for summary in store.list(owner, query=query))


def test_sessions_are_found_by_words_of_one_message(store: SqlStore) -> None:
    say(store, "a", "The old Lighthouse", "stands on a cliff")
    say(store, "b", "A lighthouse on a cliff: well-known, Café")
    say(store, "c", "lighthouse", owner="bob")
    assert found(store, "lighthouse") == ["a", "b"]
    assert found(store, "lighthouse cliff") == ["b"]
    assert found(store, "LIGHT") == ["a", "b"]  # the last word may be unfinished
    assert found(store, "light old") == []
    assert found(store, "well-known") == ["b"]
    assert found(store, "cafe") == ["b"]
    assert found(store, "lighthouse", "bob") == ["c"]
    assert found(store, " ") == ["a", "b"]
    pages = store.list("", query="lighthouse", limit=1)
    assert [s.id for s in store.list("", query="lighthouse", after=pages[0].cursor)] == ["a"]


def test_words_that_were_taken_back_are_not_found(store: SqlStore) -> None:
    say(store, "a", "first", "second")
    store.fork("a", "", "b", 2, 0, settings={})
    say(store, "a", "third", keep=1)
    assert found(store, "second") == ["b"]
    assert found(store, "third") == ["a"]
    assert found(store, "first") == ["a", "b"]
    store.delete("a")
    assert found(store, "first") == ["b"]
    say(store, "c", "fourth")  # its rows may have numbers of deleted ones
    assert found(store, "third") == []


@given(
    query=st.text(max_size=20)
    | st.sampled_from(['"', "a OR", "NEAR(", "x:y", "-a", "*", "^", "AND"])
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_query_is_a_syntax_error(store: SqlStore, query: str) -> None:
    store.list("", query=query)


@given(text=st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_a_word_finds_itself(text: str) -> None:
    with SqliteStore(Path(":memory:"), journal="delete") as store:
        say(store, "a", f"so {text} it is")
        assert found(store, text) == ["a"]
        store.delete("a")
        assert found(store, text) == []


def test_an_index_is_made_when_it_is_first_wanted(tmp_path: Path) -> None:
    path = tmp_path / "chat"
    with SqliteStore(path, is_searchable=False) as store:
        say(store, "a", "lighthouse")
        with pytest.raises(InputError, match="is_searchable=True"):
            store.list("", query="lighthouse")
    with SqliteStore(path) as store:
        assert found(store, "lighthouse") == ["a"]
    with SqliteStore(path, is_searchable=False) as store:  # kept in step all the same
        say(store, "b", "lighthouse")
        assert found(store, "lighthouse") == ["a", "b"]
