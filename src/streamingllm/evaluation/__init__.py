"""Measure how well models predict long texts, and inspect what they cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamingllm.lazy_exports import lazy_exports

_HOMES = {
    "SEGMENT_TOKENS": "streamingllm.evaluation.perplexity",
    "LayerGroup": "streamingllm.evaluation.model_facts",
    "ModelFacts": "streamingllm.evaluation.model_facts",
    "PerplexityResult": "streamingllm.evaluation.perplexity",
    "PerplexityRun": "streamingllm.evaluation.perplexity",
    "inspect_model": "streamingllm.evaluation.inspection",
    "measure_perplexity": "streamingllm.evaluation.perplexity",
    "open_documents": "streamingllm.evaluation.texts",
    "read_tokens": "streamingllm.evaluation.texts",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from streamingllm.evaluation.inspection import inspect_model as inspect_model
    from streamingllm.evaluation.model_facts import LayerGroup as LayerGroup
    from streamingllm.evaluation.model_facts import ModelFacts as ModelFacts
    from streamingllm.evaluation.perplexity import SEGMENT_TOKENS as SEGMENT_TOKENS
    from streamingllm.evaluation.perplexity import PerplexityResult as PerplexityResult
    from streamingllm.evaluation.perplexity import PerplexityRun as PerplexityRun
    from streamingllm.evaluation.perplexity import measure_perplexity as measure_perplexity
    from streamingllm.evaluation.texts import open_documents as open_documents
    from streamingllm.evaluation.texts import read_tokens as read_tokens
else:  # not for type checkers: to them every name would be Any
    __getattr__, __dir__ = lazy_exports(__name__, _HOMES)
