"""`/v1/sessions` of a gateway: list, search, inspect, create, append, forget, delete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from streamingllm.gateway.app import create_gateway
from streamingllm.gateway.seen_messages import Told
from streamingllm.gateway.session_log import SessionLog
from streamingllm.gateway.turn_memory import Asked, TurnMemory
from streamingllm.gateway.upstream import Upstream
from streamingllm.server.schemas.sessions import SessionDetailObject, SessionList
from streamingllm.sessions.turn import Identity

MINE = {"authorization": "Bearer mine"}


@pytest.fixture
def turns(tmp_path: Path) -> TurnMemory:
    return TurnMemory(SessionLog(tmp_path / "gateway.sqlite"), 400)


@pytest.fixture
def client(turns: TurnMemory) -> Iterator[TestClient]:
    """A client of a gateway whose upstream is never asked."""
    app = create_gateway(Upstream("http://127.0.0.1:9"), turns, max_body_bytes=1 << 20)
    with TestClient(app, headers=MINE) as client:
        yield client


def created(client: TestClient, *texts: str, **fields: Any) -> Any:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "text": text} for n, text in enumerate(texts)]
    answer = client.post("/v1/sessions", json={"messages": messages, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_session_is_created_and_inspected_in_the_shape_of_the_server(client: TestClient) -> None:
    made = created(
        client, "Hello.", "Hi.", id="one", system_prompt="Be brief.", metadata={"title": "A"}
    )
    detail = SessionDetailObject.model_validate(made)
    assert (detail.id, detail.metadata, detail.system_prompt) == (
        "one",
        {"title": "A"},
        "Be brief.",
    )
    assert [message.text for message in detail.messages] == ["Be brief.", "Hello.", "Hi."]
    assert [message.num_tokens for message in detail.messages] == [11, 10, 9]
    assert [message.first_token for message in detail.messages] == [0, 11, 21]
    assert detail.seen_tokens == detail.streamingllm.seen_tokens == 30
    assert detail.streamingllm.pinned_tokens == 11
    assert client.get("/v1/sessions/one").json() == made
    again = client.post("/v1/sessions", json={"id": "one"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


def test_sessions_are_listed_searched_and_paged(client: TestClient) -> None:
    for number in range(5):
        created(
            client, f"Message {number} is about {['cats', 'dogs'][number % 2]}.", id=f"s{number}"
        )
    first = SessionList.model_validate(client.get("/v1/sessions?limit=3").json())
    assert [info.id for info in first.data] == ["s4", "s3", "s2"]
    rest = client.get("/v1/sessions", params={"limit": 3, "after": first.next}).json()
    assert [info["id"] for info in rest["data"]] == ["s1", "s0"]
    assert (rest["has_more"], rest["next"]) == (False, None)
    found = client.get("/v1/sessions", params={"query": "about dog"}).json()["data"]
    assert [info["id"] for info in found] == ["s3", "s1"]
    assert client.get("/v1/sessions?limit=0").status_code == 400


def test_a_session_is_renamed_appended_to_and_deleted(client: TestClient) -> None:
    created(client, "Hello.", "Hi.", id="one")
    url = "/v1/sessions/one"
    assert client.patch(url, json={"metadata": {"title": "B"}}).json()["metadata"] == {"title": "B"}
    added = client.post(f"{url}/messages", json={"messages": [{"role": "user", "text": "More."}]})
    (message,) = added.json()["data"]
    assert (message["text"], message["first_token"]) == ("More.", 19)
    assert client.get(url).json()["num_messages"] == 3
    assert client.delete(url).json() == {"id": "one", "object": "session.deleted", "deleted": True}
    for answer in (client.get(url), client.delete(url), client.post(f"{url}/forget", json={})):
        assert answer.status_code in (400, 404)
    assert client.get("/v1/sessions").json()["data"] == []
    assert client.get("/v1/sessions?query=hello").json()["data"] == []


def test_messages_are_forgotten_with_titles_and_in_branches(
    client: TestClient, turns: TurnMemory
) -> None:
    made = created(client, "My code is zanzibar.", "Noted.", "Go on.", "Yes.", id="one")
    owner = turns.log.store.list()[0].owner
    told = (
        Told("user", "My code is zanzibar."),
        Told("assistant", "Noted."),
        Told("user", "Stop."),
    )
    branch = turns.end(turns.begin(Asked(owner, Identity(), told)), "I do.")
    client.patch(f"/v1/sessions/{branch}", json={"metadata": {"title": "My code is zanz…"}})
    secret = made["messages"][0]["id"]
    left = client.post("/v1/sessions/one/forget", json={"message_ids": [secret]}).json()
    assert [message["text"] for message in left["messages"]] == ["Noted.", "Go on.", "Yes."]
    (other,) = left["branches"]
    assert (other["id"], other["metadata"]) == (branch, {})
    texts = [m["text"] for m in client.get(f"/v1/sessions/{branch}").json()["messages"]]
    assert texts == ["Noted.", "Stop.", "I do."]
    assert client.get("/v1/sessions?query=zanzibar").json()["data"] == []
    again = client.post("/v1/sessions/one/forget", json={"message_ids": [secret]})
    assert again.status_code == 400


def test_keys_see_their_own_sessions_only(client: TestClient) -> None:
    created(client, "Hello.", id="one")
    yours = {"authorization": "Bearer yours"}
    assert client.get("/v1/sessions", headers=yours).json()["data"] == []
    assert client.get("/v1/sessions?query=hello", headers=yours).json()["data"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("DELETE", "/messages/m")):
        assert client.request(method, f"/v1/sessions/one{path}", headers=yours).status_code == 404
    assert client.post("/v1/sessions", json={"id": "one"}, headers=yours).status_code == 200


@pytest.mark.parametrize("action", ["rewind", "fork", "stop", "facts", "export"])
def test_what_a_gateway_cannot_do_is_refused_and_said(client: TestClient, action: str) -> None:
    created(client, "Hello.", id="one")
    answer = client.request("GET" if action == "export" else "POST", f"/v1/sessions/one/{action}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported")
    told = client.get("/v1/capabilities").json()
    assert told["answers"] == "chat.completions"
    assert action not in told["can"]


@pytest.mark.parametrize("fields", [{"tools": [{"name": "f"}]}, {"eviction": "token"}, {"id": "ä"}])
def test_a_session_that_a_gateway_cannot_keep_is_refused(
    client: TestClient, fields: dict[str, Any]
) -> None:
    answer = client.post("/v1/sessions", json=fields)
    assert answer.status_code == 400
    assert next(iter(fields)) in answer.json()["error"]["message"]


def test_the_page_is_there_and_can_be_left_out(client: TestClient, tmp_path: Path) -> None:
    answer = client.get("/")
    assert "content-security-policy" in answer.headers
    assert client.get("/page/js/main.js").status_code == 200
    log = SessionLog(tmp_path / "other.sqlite")
    app = create_gateway(
        Upstream("http://127.0.0.1:9"), TurnMemory(log, 0), has_page=False, max_body_bytes=1
    )
    with TestClient(app) as other:
        assert other.get("/").status_code == 502  # of the upstream, which is not there
