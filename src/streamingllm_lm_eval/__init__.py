"""Run the tasks of lm-evaluation-harness under any cache: `python -m streamingllm_lm_eval`."""

from streamingllm_lm_eval.model import StreamingLM

__all__ = ["StreamingLM"]
