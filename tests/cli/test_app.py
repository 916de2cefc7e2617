from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from streamingllm.cli import main
from streamingllm.cli.app import app


def run(*arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    code = stopped.value.code
    assert isinstance(code, int)
    return code


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert re.fullmatch(r"streamingllm \S.*\n", capsys.readouterr().out)


def test_an_error_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull", "no-such-model") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: model='no-such-model' is unknown; choose one of ")
    assert err.count("\n") == 1


def test_an_unknown_option_has_the_same_exit_code() -> None:
    assert run("pull", "--no-such-option") == 2


def test_every_command_explains_itself_with_an_example() -> None:
    names = []

    def check(command: object, name: str) -> None:
        assert isinstance(command, typer.core.TyperCommand | typer.core.TyperGroup)
        assert f"Example: `streamingllm {name}" in (command.help or ""), name
        names.append(name)
        for child, inner in getattr(command, "commands", {}).items():
            check(inner, f"{name} {child}")

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name, command in group.commands.items():
        check(command, name)
    assert {"pull", "bench", "bench decode", "bench flatness"} <= set(names)


@pytest.mark.parametrize(
    "program",
    [["-m", "streamingllm"], ["-c", "from streamingllm.cli import main; main()"]],
    ids=["package", "function"],
)
def test_the_package_runs_as_a_program(program: list[str], tmp_path: Path) -> None:
    command = [sys.executable, *program, "pull"]
    result = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"error: model={str(tmp_path)!r} has no config.json; choose a folder with a model\n"
    )
