"""Command line of lm-evaluation-harness, which then knows the model `streamingllm`."""

from lm_eval.__main__ import cli_evaluate

import streamingllm_lm_eval  # noqa: F401  (registers the model)

if __name__ == "__main__":
    cli_evaluate()
