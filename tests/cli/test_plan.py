from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.terminal import run_command

Capture = pytest.CaptureFixture[str]


def test_people_get_a_table(tiny_folder: Path, capsys: Capture) -> None:
    assert run_command("plan", str(tiny_folder), "--price", "1.5") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "sinks" in printed
    assert "resend" in printed
    assert "price a month" in printed
    assert "within 64 trained positions" in printed


def test_programs_get_every_figure(tiny_folder: Path, capsys: Capture) -> None:
    arguments = ["--window-size", "28", "--users", "10", "--history-tokens", "500", "--json", "-"]
    assert run_command("plan", str(tiny_folder), *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["methods"]) == {"sinks", "dense", "resend", "recompute"}
    sinks, dense = found["methods"]["sinks"], found["methods"]["dense"]
    costs = found["costs"]
    assert sinks["device_bytes_per_stream"] == costs["cache_bytes"] + costs["rewind_bytes"]
    assert dense["idle_bytes_per_session"] == 500 * found["costs"]["bytes_per_entry"]
    assert found["workload"]["tokens_a_day"] == 10 * 20 * 260
    assert found["config"]["hardware"] == "epyc-2"
    assert {"versions", "hardware", "git_commit"} <= found.keys()


def test_this_machine_is_measured_when_asked(tiny_folder: Path, capsys: Capture) -> None:
    arguments = ["--window-size", "28", "--measure", "--json", "-"]
    assert run_command("plan", str(tiny_folder), *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["speed"]["source"] == "measured now"
    assert found["config"]["hardware"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hardware", "abacus"], "hardware='abacus' is unknown"),
        (["--users", "0"], "users=0.0 is not positive"),
        (["--memory", "0"], "does not hold the weights"),
    ],
)
def test_a_wrong_option_is_one_line(
    tiny_folder: Path, capsys: Capture, arguments: list[str], message: str
) -> None:
    assert run_command("plan", str(tiny_folder), *arguments) == 2
    assert message in capsys.readouterr().err
