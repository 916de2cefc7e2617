"""Conversations and their items."""

from __future__ import annotations

from typing import Any

from tests.server.requests import Api
from tests.server.test_responses import create, refused, text_of, user

PATH = "/v1/conversations"


def made(api: Api, **fields: Any) -> str:
    answer = api.post(PATH, fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "conversation"
    return str(answer.json()["id"])


def texts(api: Api, conversation: str) -> list[str]:
    items = api.get(f"{PATH}/{conversation}/items?order=asc").json()["data"]
    return ["".join(part["text"] for part in item["content"]) for item in items]


def test_a_conversation_is_made_changed_and_deleted(api: Api) -> None:
    name = made(api, metadata={"a": "1"})
    assert api.get(f"{PATH}/{name}").json()["metadata"] == {"a": "1"}
    assert api.post(f"{PATH}/{name}", {"metadata": {"b": "2"}}).json()["metadata"] == {"b": "2"}
    assert api.delete(f"{PATH}/{name}").json()["deleted"] is True
    for answer in (
        api.get(f"{PATH}/{name}"),
        api.post(f"{PATH}/{name}", {"metadata": {}}),
        api.delete(f"{PATH}/{name}"),
        api.get(f"{PATH}/{name}/items"),
        api.post(f"{PATH}/{name}/items", {"items": [user("x")]}),
        api.get(f"{PATH}/{name}/items/msg_x"),
        api.delete(f"{PATH}/{name}/items/msg_x"),
    ):
        refused(answer, 404, "not found")


def test_a_body_may_be_missing_or_empty(api: Api) -> None:
    assert api.send(PATH, b"").status_code == 200
    assert texts(api, made(api, items=[])) == []


def test_items_are_appended_listed_read_and_deleted(api: Api) -> None:
    name = made(api, items=[user("one"), {"role": "assistant", "content": "two"}])
    added = api.post(f"{PATH}/{name}/items", {"items": [user("three")]}).json()["data"]
    assert texts(api, name) == ["one", "two", "three"]
    item = api.get(f"{PATH}/{name}/items/{added[0]['id']}").json()
    assert item == added[0]
    newest = api.get(f"{PATH}/{name}/items?limit=1").json()
    assert newest["data"] == added
    assert newest["has_more"] is True
    assert api.delete(f"{PATH}/{name}/items/{added[0]['id']}").json()["id"] == name
    assert texts(api, name) == ["one", "two"]
    refused(api.get(f"{PATH}/{name}/items/{added[0]['id']}"), 404, "not found")


def test_a_leading_system_message_is_pinned(api: Api) -> None:
    name = made(api, items=[{"role": "system", "content": "Be kind."}, user("hi")])
    response = create(api, "there", conversation=name)
    assert response["streamingllm"]["pinned_tokens"] == len("s:Be kind.~")
    assert texts(api, name) == ["Be kind.", "hi", "there", text_of(response)]


def test_the_model_reads_an_item_that_was_deleted_no_longer(api: Api) -> None:
    name = made(api, items=[user("one")])
    create(api, "two", conversation=name)
    items = api.get(f"{PATH}/{name}/items?order=asc").json()["data"]
    api.delete(f"{PATH}/{name}/items/{items[1]['id']}")
    response = create(api, "three", conversation=name)
    other = made(api, items=[user("one"), {"role": "assistant", "content": text_of_item(items[2])}])
    assert text_of(response) == text_of(create(api, "three", conversation=other))


def text_of_item(item: Any) -> str:
    return "".join(part["text"] for part in item["content"])
