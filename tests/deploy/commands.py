"""Options of our commands, as a file of deployment gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.main import get_command

from streamingllm.cli.app import app


def check_options(command: str, arguments: Sequence[str]) -> None:
    """Let the command line itself parse arguments of one of our commands, without running it."""
    group: Any = get_command(app)
    found = group.commands[command]
    found.make_context(command, list(arguments), parent=typer.Context(group))
