from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from streamingllm.errors import ConfigError, ResponseNotFoundError, SessionConflictError
from streamingllm.server.encoders.common import to_json
from streamingllm.sessions.response_store import ResponseRecord, ResponseStore
from streamingllm.sessions.sql_store import SqlStore
from tests.sessions.test_sqlite_store import turn

FAR = time.time() + 1e9


def record(
    response_id: str, owner: str = "ada", session: str = "s", expires: float = FAR
) -> ResponseRecord:
    return ResponseRecord(
        response_id, owner, session, None, "in_progress", "{}", "[]", 1.0, expires
    )


def ids_of(responses: ResponseStore, owner: str, *wanted: str) -> list[str]:
    found = []
    for response_id in wanted:
        try:
            found.append(responses.get(owner, response_id).id)
        except ResponseNotFoundError:
            continue
    return found


def test_a_response_is_kept_and_replaced(store: SqlStore) -> None:
    responses = ResponseStore(store.database)
    running = record("r")
    responses.put(running)
    assert responses.get("ada", "r") == running
    done = replace(running, message_id="m", status="completed", body='{"a":1}')
    responses.put(done)
    assert responses.get("ada", "r") == done
    assert responses.count() == 1
    responses.delete("ada", "r")
    with pytest.raises(ResponseNotFoundError, match="response_id='r' is not stored"):
        responses.delete("ada", "r")


def test_a_response_of_another_owner_is_a_missing_one(store: SqlStore) -> None:
    responses = ResponseStore(store.database)
    responses.put(record("r"))
    for attempt in (responses.get, responses.delete):
        messages = []
        for response_id in ("r", "missing"):
            with pytest.raises(ResponseNotFoundError) as caught:
                attempt("bob", response_id)
            messages.append(str(caught.value).replace(repr(response_id), "..."))
        assert messages[0] == messages[1]
    with pytest.raises(SessionConflictError, match="use another id"):
        responses.put(record("r", "bob"))
    assert responses.delete_of_session("bob", "s") == 0
    assert responses.get("ada", "r") == record("r")


def test_the_oldest_responses_make_room(store: SqlStore) -> None:
    responses = ResponseStore(store.database, max_responses=3)
    for number in range(3):
        responses.put(record(f"r{number}"))
        responses.append_events(f"r{number}", 0, ["a"])
    responses.put(record("r0"))  # replaced, which makes it no younger
    responses.put(record("r3", "bob"))
    assert responses.count() == 3
    assert ids_of(responses, "ada", "r0", "r1", "r2") == ["r1", "r2"]
    assert responses.events("r0", -1) == []
    with pytest.raises(ConfigError, match="max_responses=0"):
        ResponseStore(store.database, max_responses=0)


def test_an_expired_response_is_not_found(store: SqlStore) -> None:
    responses = ResponseStore(store.database)
    responses.put(record("old", expires=10.0))
    responses.put(record("new"))
    assert ids_of(responses, "ada", "old", "new") == ["new"]
    assert responses.expire(9.0) == 0
    assert responses.expire(10.0) == 1
    assert responses.count() == 1


def test_a_stream_of_events_resumes_after_a_number(store: SqlStore) -> None:
    responses = ResponseStore(store.database)
    with pytest.raises(ResponseNotFoundError):
        responses.append_events("r", 0, ["a"])
    responses.put(record("r"))
    responses.append_events("r", 0, ["a", "b"])
    responses.append_events("r", 2, ["c"])
    responses.append_events("r", 2, ["c"])  # written twice
    assert responses.events("r", -1) == [(0, "a"), (1, "b"), (2, "c")]
    assert responses.events("r", 1) == [(2, "c")]
    responses.delete("ada", "r")
    assert responses.events("r", -1) == []


@pytest.mark.parametrize("owner", ["ada", ""])
def test_a_deleted_session_takes_its_responses_along(store: SqlStore, owner: str) -> None:
    responses = ResponseStore(store.database)
    key = f"{owner or '-'}/s"
    store.create(key, owner=owner)
    responses.put(record("by id", owner))
    responses.put(record("by key", owner, key))
    responses.put(record("other session", owner, "t"))
    responses.put(record("other owner", "bob"))
    store.delete(key, owner)
    assert ids_of(responses, owner, "by id", "by key", "other session") == ["other session"]
    assert ids_of(responses, "bob", "other owner") == ["other owner"]


def test_a_turn_and_its_response_are_durable_together(
    store: SqlStore, open_store: Callable[[], SqlStore]
) -> None:
    responses = ResponseStore(store.database)
    epoch = store.create("s")
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.commit_turn("s", epoch, turn(0, 0, 3))
        responses.put(record("r"))
        raise ZeroDivisionError
    assert responses.count() == 0
    assert store.summary("s").epoch == epoch
    with store.transaction():
        store.commit_turn("s", epoch, turn(0, 0, 3))
        responses.put(record("r"))
    other = open_store()
    assert ResponseStore(other.database).get("ada", "r") == record("r")
    assert other.summary("s").epoch == 1


@pytest.mark.parametrize("said", ["plain", "é", "a\u2028b", "é\u2028\x85\nb", 'a "b" \\'])
def test_words_are_found_however_they_are_written(store: SqlStore, said: str) -> None:
    responses = ResponseStore(store.database)
    responses.put(replace(record("r"), body=to_json({"text": f"I said: {said}."})))
    responses.put(replace(record("other"), body=to_json({"text": "I said nothing."})))
    assert responses.erase("ada", "s", [said]) == 1
    assert ids_of(responses, "ada", "r", "other") == ["other"]
