"""Tell which model is served: GET /v1/models."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from streamingllm.server.schemas.common import ErrorBody
from streamingllm.server.schemas.models import (
    AnthropicModel,
    AnthropicModelList,
    ModelList,
    ServedModel,
)
from streamingllm.server.served_model import check_model, model_names

router = APIRouter(tags=["models"])
_STARTED_SECONDS = int(time.time())


@router.get("/v1/models", response_model=ModelList | AnthropicModelList)
async def list_models(request: Request) -> Any:
    """List the one model that is served, in the shape of the API that the client speaks."""
    if _is_anthropic(request):
        model = _anthropic_model(request)
        return AnthropicModelList(data=[model], has_more=False, first_id=model.id, last_id=model.id)
    return ModelList(data=[_model(request)])


@router.get(
    "/v1/models/{model_id:path}",
    response_model=ServedModel | AnthropicModel,
    responses={404: {"model": ErrorBody, "description": "No model of that name is served."}},
)
async def get_model(request: Request, model_id: str) -> Any:
    """Describe the model, if it is served."""
    check_model(request, model_id)
    if _is_anthropic(request):
        return _anthropic_model(request)
    return _model(request)


def _is_anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _model(request: Request) -> ServedModel:
    manager = request.app.state.manager
    served, *aliases = model_names(request)
    trained = getattr(manager.lm.model.config, "max_position_embeddings", None)
    return ServedModel(
        id=served,
        created=_STARTED_SECONDS,
        aliases=aliases,
        cache_size=manager.cache_size,
        trained_length=trained if isinstance(trained, int) else None,
    )


def _anthropic_model(request: Request) -> AnthropicModel:
    served = model_names(request)[0]
    created = datetime.fromtimestamp(_STARTED_SECONDS, UTC).isoformat().replace("+00:00", "Z")
    return AnthropicModel(type="model", id=served, display_name=served, created_at=created)
