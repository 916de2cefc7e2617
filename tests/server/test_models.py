"""GET /v1/models against a real server."""

from __future__ import annotations

from tests.server.requests import Api

ANTHROPIC = {"anthropic-version": "2023-06-01"}


def test_the_model_is_listed_in_both_shapes(api: Api) -> None:
    (model,) = api.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == (api.model, "model")
    assert model["cache_size"] > 0
    listed = api.get("/v1/models", headers=ANTHROPIC).json()
    assert [one["type"] for one in listed["data"]] == ["model"]
    assert (listed["first_id"], listed["has_more"]) == (api.model, False)


def test_one_model_is_described_by_its_id(api: Api) -> None:
    assert api.get(f"/v1/models/{api.model}").json()["id"] == api.model
    assert api.get(f"/v1/models/{api.model}", headers=ANTHROPIC).json()["type"] == "model"
    missing = api.get("/v1/models/org/another")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
