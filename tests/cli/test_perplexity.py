from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamingllm.config import STRATEGIES, StreamConfig
from streamingllm.evaluation import measure_perplexity
from streamingllm.models import LanguageModel, load_model
from tests.cli.terminal import run_command, run_with_full_disk

Capture = pytest.CaptureFixture[str]
NUM_TOKENS = 300


@pytest.fixture
def arguments(tiny_folder: Path, tiny_text: Path) -> list[str]:
    """A run of the tiny model over 300 tokens."""
    run = ["perplexity", "--model", str(tiny_folder), "--text", str(tiny_text)]
    return [*run, "--max-tokens", str(NUM_TOKENS)]


def results(capture: Capture, *arguments: str) -> dict[str, Any]:
    """Run with `--json -` and return what is on standard output, which must be that alone."""
    assert run_command(*arguments, "--json", "-") == 0
    found: dict[str, Any] = json.loads(capture.readouterr().out)
    return found


def test_the_default_model_reads_a_text(
    default_model: LanguageModel, tmp_path: Path, capsys: Capture
) -> None:
    nll = tmp_path / "nll.npy"
    found = results(
        capsys,
        *("perplexity", "--text", "pydoc", "--max-tokens", "2000", "--dtype", "float32"),
        *("--num-sink-tokens", "4", "--window-size", "252", "--nll", str(nll)),
    )
    assert found["tokens"] == 2000
    assert found["tokens_per_second"] > 0
    assert found["cache_bytes"] == 2 * 30 * 3 * 64 * 256 * 4
    assert found["segments"] == [found["perplexity"]]
    assert found["config"]["num_sink_tokens"] == 4
    assert found["config"]["window_size"] == 252
    assert found["config"]["dtype"] == "float32"
    losses = np.load(nll)
    assert losses.shape == (1999,)
    assert losses.dtype == np.float32
    assert found["perplexity"] == pytest.approx(math.exp(losses.mean(dtype=np.float64)))
    assert 5 < found["perplexity"] < 30


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_one_word_away(
    strategy: str, arguments: list[str], tiny_folder: Path, tiny_text: Path, capsys: Capture
) -> None:
    found = results(capsys, *arguments, "--strategy", strategy)
    lm = load_model(tiny_folder)
    factor = NUM_TOKENS / 64 if strategy == "interpolation" else 1.0
    expected = measure_perplexity(
        lm.model,
        lm.encode(tiny_text.read_text(encoding="utf-8"))[:NUM_TOKENS],
        StreamConfig(strategy=strategy, interpolation_factor=factor),
    )
    assert found["perplexity"] == pytest.approx(expected.perplexity, rel=1e-5)
    assert found["cache_bytes"] == expected.cache_bytes
    assert found["config"]["strategy"] == strategy


def test_settings_are_reported_as_they_apply(arguments: list[str], capsys: Capture) -> None:
    def config(*options: str) -> dict[str, Any]:
        found: dict[str, Any] = results(capsys, *arguments, *options)["config"]
        return found

    names = ("num_sink_tokens", "window_size", "interpolation_factor", "chunk_size")
    sinks = config("--window-size", "30", "--chunk-size", "50")
    assert [sinks[name] for name in names] == [4, 30, None, 50]
    window = config("--strategy", "window", "--window-size", "34")
    assert [window[name] for name in names] == [0, 34, None, 1024]
    dense = config("--strategy", "dense")
    assert [dense[name] for name in names] == [0, None, None, 1024]
    interpolation = config("--strategy", "interpolation", "--interpolation-factor", "3")
    assert [interpolation[name] for name in names] == [0, None, 3.0, 1024]
    recompute = config("--strategy", "recompute", "--window-size", "34")
    assert [recompute[name] for name in names] == [0, 34, None, 16]


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        (("--quantize-cache", "int8"), 0.02),
        (("--quantize", "int8", "--dtype", "float32"), 0.02),
        (("--quantize", "int4", "--dtype", "float32"), 0.5),
    ],
)
def test_quantised_weights_and_caches_read_nearly_the_same(
    arguments: list[str],
    options: tuple[str, ...],
    tolerance: float,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    run = (*arguments, "--window-size", "30", "--cache-dir", str(tmp_path))
    exact, found = results(capsys, *run), results(capsys, *run, *options)
    assert found["perplexity"] == pytest.approx(exact["perplexity"], rel=tolerance)
    assert found["perplexity"] != exact["perplexity"]
    assert found["config"][options[0][2:].replace("-", "_")] == options[1]
    if options[0] == "--quantize-cache":
        assert found["cache_bytes"] == 2 * 2 * 2 * (30 * (8 + 4) + 4 * 8 * 4)


def test_people_get_a_table(arguments: list[str], capsys: Capture) -> None:
    assert run_command(*arguments, "--threads", "1") == 0
    printed = capsys.readouterr()
    assert "sinks: perplexity" in printed.out
    assert "0 to 300" in printed.out
    assert "300 tokens" in printed.err
    assert torch.get_num_threads() == 1


def test_results_go_to_files(arguments: list[str], tmp_path: Path, capsys: Capture) -> None:
    path, nll = tmp_path / "result.json", tmp_path / "nll.npy"
    assert run_command(*arguments, "--json", str(path), "--nll", str(nll)) == 0
    found = json.loads(path.read_text())
    assert found["versions"]["torch"]
    assert found["hardware"]["torch_threads"] == torch.get_num_threads()
    assert found["segment_tokens"] == 4096
    assert len(np.load(nll)) == NUM_TOKENS - 1
    assert sorted(tmp_path.iterdir()) == [nll, path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window-size", "0"], "window_size=0 is out of range"),
        (
            ["--num-sink-tokens", "-1"],
            "num_sink_tokens=-1 is out of range",
        ),
        (["--chunk-size", "0"], "chunk_size=0 is out of range"),
        (["--max-tokens", "1"], "max_tokens=1 is out of range"),
        (["--threads", "0"], "threads=0 is out of range"),
        (["--strategy", "magic"], "strategy='magic' is unknown; choose one of sinks, dense"),
        (["--interpolation-factor", "2"], "interpolation_factor=2.0: strategy 'sinks' has none"),
        (
            ["--strategy", "interpolation", "--interpolation-factor", "0.5"],
            "interpolation_factor=0.5 is out of range; choose a finite number >= 1",
        ),
        (
            ["--strategy", "window", "--num-sink-tokens", "8"],
            "num_sink_tokens=8: strategy 'window' has none",
        ),
        (["--strategy", "dense", "--window-size", "9"], "window_size=9: strategy 'dense' has none"),
        (["--text", "/no/such/file"], "text='/no/such/file' cannot be read"),
        (["--nll", "/no/such/folder/nll.npy"], "nll='/no/such/folder/nll.npy' cannot be written"),
        (["--json", "/no/such/folder/a.json"], "json='/no/such/folder/a.json' cannot be written"),
        (
            ["--quantize", "int3"],
            "quantize='int3' is unknown; choose one of auto, none,",
        ),
        (
            ["--quantize-cache", "int4"],
            "quantize_cache='int4' is unknown; choose one of none, int8",
        ),
        (["--dtype", "int3"], "dtype='int3' is unknown; choose one of auto"),
        (["--model", "/no/such/model"], "/no/such/model"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], options: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    nll = tmp_path / "nll.npy"
    assert run_command(*arguments, "--nll", str(nll), *options) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "existing"), [("--json", b"older"), ("--nll", None)])
def test_a_full_disk_leaves_nothing_half_written(
    arguments: list[str], option: str, existing: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "result"
    if existing is not None:
        path.write_bytes(existing)
    done = run_with_full_disk([*arguments, option, str(path)], tmp_path, max_file_bytes=200)
    assert done.returncode == 2
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "File too large" in error
    assert "sinks: perplexity" in done.stdout  # what hours have found is not lost with the file
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [existing] * (existing is not None)
