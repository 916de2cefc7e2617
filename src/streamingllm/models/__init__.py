"""Models by name: where their weights come from, and how they are loaded."""

from streamingllm.models.catalog import CATALOG, DEFAULT_MODEL, CatalogEntry, PackagedWeights
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.language_model import LanguageModel
from streamingllm.models.load import load_model
from streamingllm.models.locate import locate_checkpoint
from streamingllm.models.progress import Progress

__all__ = [
    "CATALOG",
    "DEFAULT_MODEL",
    "CatalogEntry",
    "Checkpoint",
    "LanguageModel",
    "PackagedWeights",
    "Progress",
    "load_model",
    "locate_checkpoint",
]
