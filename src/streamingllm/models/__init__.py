"""Models by name: where their weights come from, and how they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamingllm.lazy_exports import lazy_exports

_HOMES = {
    "CATALOG": "streamingllm.models.catalog",
    "DEFAULT_MODEL": "streamingllm.models.catalog",
    "CatalogEntry": "streamingllm.models.catalog",
    "Checkpoint": "streamingllm.models.checkpoint",
    "LanguageModel": "streamingllm.models.language_model",
    "PackagedWeights": "streamingllm.models.catalog",
    "Progress": "streamingllm.models.progress",
    "load_model": "streamingllm.models.load",
    "locate_checkpoint": "streamingllm.models.locate",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from streamingllm.models.catalog import CATALOG as CATALOG
    from streamingllm.models.catalog import DEFAULT_MODEL as DEFAULT_MODEL
    from streamingllm.models.catalog import CatalogEntry as CatalogEntry
    from streamingllm.models.catalog import PackagedWeights as PackagedWeights
    from streamingllm.models.checkpoint import Checkpoint as Checkpoint
    from streamingllm.models.language_model import LanguageModel as LanguageModel
    from streamingllm.models.load import load_model as load_model
    from streamingllm.models.locate import locate_checkpoint as locate_checkpoint
    from streamingllm.models.progress import Progress as Progress
else:  # not for type checkers: to them every name would be Any
    __getattr__, __dir__ = lazy_exports(__name__, _HOMES)
