"""GET /v1/models against a real server."""

from __future__ import annotations

import json
import re

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


def test_a_name_is_listed_once(smol: Api) -> None:
    """The setting `model` is the id of the model here, so it is no alias."""
    (model,) = smol.get("/v1/models").json()["data"]
    assert model["aliases"] == []


def test_the_description_of_the_api_is_complete(api: Api) -> None:
    """Every reference leads somewhere, and every request says what it takes."""
    described = api.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    refs = re.findall(r'"\$ref": "([^"]+)"', json.dumps(described))
    assert refs
    assert {ref.removeprefix("#/components/schemas/") for ref in refs} <= schemas.keys()
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages"):
        content = described["paths"][path]["post"]["requestBody"]["content"]
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert schemas[name]["additionalProperties"] is False
        answer = described["paths"][path]["post"]["responses"]["200"]["content"]
        assert answer.keys() == {"application/json", "text/event-stream"}
