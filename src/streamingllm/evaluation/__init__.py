"""How well models predict long texts, and what they keep while they read."""

from streamingllm.evaluation.inspection import LayerGroup, ModelFacts, inspect_model
from streamingllm.evaluation.perplexity import (
    SEGMENT_TOKENS,
    PerplexityResult,
    Reading,
    measure_perplexity,
)
from streamingllm.evaluation.texts import open_documents, read_tokens

__all__ = [
    "SEGMENT_TOKENS",
    "LayerGroup",
    "ModelFacts",
    "PerplexityResult",
    "Reading",
    "inspect_model",
    "measure_perplexity",
    "open_documents",
    "read_tokens",
]
