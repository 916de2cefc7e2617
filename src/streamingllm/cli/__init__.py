"""The command line."""

from streamingllm.cli.app import main

__all__ = ["main"]
