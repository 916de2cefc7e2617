"""A help text and a usage error import neither torch nor transformers."""

from __future__ import annotations

import json
import subprocess
import sys

import typer.main

from streamingllm.cli.app import app

_HEAVY = ("torch", "transformers", "huggingface_hub", "safetensors", "gguf", "matplotlib", "numpy")
_PROGRAM = """
import contextlib, io, json, sys
heavy, lines = json.loads(sys.argv[1])
from streamingllm.cli import main
found = {}
for line in lines:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main(line)
        except SystemExit as end:
            code = end.code
    found[" ".join(line)] = [code, len(output.getvalue()), [m for m in heavy if m in sys.modules]]
print(json.dumps(found))
"""


def commands() -> list[list[str]]:
    """Every command and sub-command as words, the program itself as none."""
    names: list[list[str]] = [[]]

    def add(group: object, words: list[str]) -> None:
        for name, command in getattr(group, "commands", {}).items():
            names.append([*words, name])
            add(command, [*words, name])

    add(typer.main.get_command(app), [])
    return names


def run(lines: list[list[str]]) -> dict[str, tuple[int, int, list[str]]]:
    """Run command lines in one new process: exit code, length of output, heavy modules, of each."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps([_HEAVY, lines])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_help_text() -> None:
    lines = [[*words, "--help"] for words in commands()]
    assert len(lines) >= 14
    for line, (code, length, heavy) in run([["--version"], *lines]).items():
        assert (code, heavy) == (0, []), line
        assert length > 0


def test_usage_errors() -> None:
    lines = [[*words, "--no-such-option"] for words in commands()]
    lines += [
        ["no-such-command"],
        ["generate"],
        ["generate", "The sea", "--max-new-tokens", "-1"],
        ["generate", "The sea", "--window-size", "0"],
        ["perplexity", "--text", ""],
        ["perplexity", "--strategy", "none-such"],
        ["demo", "--max-tokens", "1"],
        ["bench", "decode", "--steps", "0"],
        ["inspect", "--window-size", "0"],
    ]
    for line, (code, length, heavy) in run(lines).items():
        assert (code, heavy) == (2, []), line
        assert length > 0
