from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from streamingllm.cli.demo import results_table
from streamingllm.cli.progress_board import ProgressBoard, format_perplexity
from streamingllm.config import StreamConfig
from streamingllm.evaluation import PerplexityResult, PerplexityRun
from tests.cli.terminal import run_command, run_with_full_disk
from tests.reference.tiny_llama import random_ids, tiny_llama

Capture = pytest.CaptureFixture[str]
PNG_SIGNATURE = b"\x89PNG"


@pytest.fixture
def arguments(tiny_folder: Path, tiny_text: Path) -> list[str]:
    """A demo of the tiny model, over in a moment."""
    return ["demo", "--model", str(tiny_folder), "--text", str(tiny_text), "--window-size", "28"]


def test_the_three_strategies_are_compared(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(*arguments, "--dtype", "float32") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "reads 308 tokens" in printed
    assert "dense attention stops after 128" in printed
    assert "308 tokens perplexity" in printed
    assert "tokens sinks window dense 0 to 308" in printed
    assert "A window is not a memory" in printed
    assert "before the last 28 tokens, save 4 at the very start" in printed

    assert (tmp_path / "streamingllm-demo.png").read_bytes().startswith(PNG_SIGNATURE)
    found = json.loads((tmp_path / "streamingllm-demo.json").read_text())
    assert list(found["strategies"]) == ["sinks", "window", "dense"]
    sinks, window, dense = found["strategies"].values()
    assert (sinks["tokens"], window["tokens"], dense["tokens"]) == (308, 308, 128)
    assert sinks["cache_bytes"] == window["cache_bytes"]
    assert dense["cache_bytes"] == sinks["cache_bytes"] // 32 * 128
    assert window["config"]["window_size"] == 32
    assert found["config"]["trained_length"] == 64
    assert found["hardware"]["cores"] >= 1


def test_json_can_have_standard_output_to_itself(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    plot = tmp_path / "plot.png"
    assert run_command(*arguments, "--json", "-", "--plot", str(plot), "--max-tokens", "100") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["strategies"]["dense"]["tokens"] == 100
    assert "A window is not a memory" in printed.err
    assert list(tmp_path.iterdir()) == [plot]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window-size", "0"], "window_size=0 is out of range"),
        (["--max-tokens", "1"], "max_tokens=1 is out of range"),
        (
            ["--plot", "/no/such/folder/plot.png"],
            "plot='/no/such/folder/plot.png' cannot be written",
        ),
        (["--text", "/no/such/file"], "text='/no/such/file'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str],
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(*arguments, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(arguments: list[str], tmp_path: Path) -> None:
    done = run_with_full_disk(arguments, tmp_path, max_file_bytes=2000)
    assert done.returncode == 2
    assert "error: plot='streamingllm-demo.png' cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_shows_a_line_that_moves() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    run = PerplexityRun(tiny_llama(), random_ids(40), StreamConfig(2, 8, chunk_size=16))
    with ProgressBoard(console, {"sinks": run}) as board:
        while not run.is_done:
            run.step()
            board.update()
    last = screen.getvalue().rpartition("sinks")[2]
    assert "40 tokens" in last
    assert "━" in last


def test_perplexities_keep_to_their_column() -> None:
    for perplexity in (1.0, 99_998.9, 1e5, 3.4e12, float("inf"), float("nan")):
        assert len(format_perplexity(perplexity)) <= 7


def test_the_table_goes_on_where_dense_attention_stops() -> None:
    def result(tokens: int) -> PerplexityResult:
        return PerplexityResult(np.zeros(tokens - 1, np.float32), 100, 1.0, cache_bytes=5)

    screen = io.StringIO()
    table = results_table({"sinks": result(250), "dense": result(150)})
    Console(file=screen, width=60).print(table)
    rows = [line.split() for line in screen.getvalue().splitlines()]
    assert rows[2:5] == [
        ["0", "to", "100", "1.0", "1.0"],
        ["100", "to", "200", "1.0", "1.0"],
        ["200", "to", "250", "1.0", "-"],
    ]
