from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamingllm.evaluation import speed
from tests.cli.terminal import run_command

Capture = pytest.CaptureFixture[str]
N, M = 2, 14
CACHE_BYTES = 2 * 2 * 2 * 8 * (N + M)  # keys and values, layers, heads, head_dim, entries
COMMANDS = ("decode", "prefill", "batch", "flatness", "stall")


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_READ_BYTES", 1 << 20)


@pytest.fixture
def options(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """A tiny model with a small window; nothing is compiled."""
    shape = ["--num-sink-tokens", str(N), "--window-size", str(M)]
    return ["--model", str(tiny_folder), *shape, "--cache-dir", str(tmp_path)]


def results(capture: Capture, *arguments: str) -> dict[str, Any]:
    """Run with `--json -` and return what is on standard output, which must be that alone."""
    assert run_command("bench", *arguments, "--json", "-") == 0
    found: dict[str, Any] = json.loads(capture.readouterr().out)
    assert found["hardware"]["torch_threads"] == found["config"]["threads"]
    assert found["versions"]["torch"]
    return found


def check_decode(found: dict[str, Any]) -> None:
    times = found["milliseconds_per_token"]
    assert 0 < times["min"] <= times["median"] <= times["p95"]
    assert found["bandwidth_share"] > 0
    assert found["bandwidth_share"] == pytest.approx(
        found["bytes_per_token"] / (times["median"] / 1e3) / found["bandwidth_bytes_per_second"]
    )
    assert found["startup_seconds"] >= found["compile_seconds"] >= 0
    assert found["compiled"] is False


def test_decode_reports_what_the_contract_names(options: list[str], capsys: Capture) -> None:
    found = results(
        capsys, "decode", *options, "--no-compile", "--steps", "3", "--dtype", "float32"
    )
    check_decode(found)
    assert found["cache_bytes"] == 4 * CACHE_BYTES
    assert found["bytes_per_token"] > found["cache_bytes"]
    assert found["tokens_per_second"] > 0
    config = found["config"]
    names = ("num_sink_tokens", "window_size", "steps", "batch_size", "dtype", "quantize")
    assert [config[name] for name in names] == [N, M, 3, 1, "float32", "none"]


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_decode_takes_packed_weights(quantize: str, options: list[str], capsys: Capture) -> None:
    run = ("decode", *options, "--no-compile", "--steps", "2")
    exact = results(capsys, *run, "--dtype", "float32")
    packed = results(capsys, *run, "--quantize", quantize)
    check_decode(packed)
    assert packed["config"]["quantize"] == quantize
    assert packed["config"]["dtype"] == "bfloat16"
    assert packed["cache_bytes"] == 2 * CACHE_BYTES
    assert packed["bytes_per_token"] < exact["bytes_per_token"]


def test_decode_takes_an_eight_bit_cache_and_a_batch(options: list[str], capsys: Capture) -> None:
    found = results(
        capsys,
        *("decode", *options, "--no-compile", "--steps", "2", "--dtype", "float32"),
        *("--quantize-cache", "int8", "--batch-size", "3"),
    )
    check_decode(found)
    assert found["cache_bytes"] == 3 * 2 * 2 * 2 * (M * (8 + 4) + N * 8 * 4)
    assert found["config"]["batch_size"] == 3


def test_decode_starts_where_it_is_told(options: list[str], capsys: Capture) -> None:
    found = results(
        capsys, "decode", *options, "--no-compile", "--steps", "2", "--start-position", "1000000"
    )
    check_decode(found)
    assert found["config"]["start_position"] == 1_000_000


def test_prefill(options: list[str], capsys: Capture) -> None:
    found = results(capsys, "prefill", *options, "--tokens", "50", "--rounds", "2")
    assert found["tokens"] == 50
    times = found["milliseconds_per_prompt"]
    assert found["tokens_per_second"] == pytest.approx(50 / times["median"] * 1e3)
    assert found["config"]["rounds"] == 2


def test_batch(options: list[str], capsys: Capture) -> None:
    sizes = ("--batch-size", "1", "--batch-size", "3")
    found = results(capsys, "batch", *options, "--no-compile", "--steps", "2", *sizes)
    assert list(found["batch_sizes"]) == ["1", "3"]
    one, three = found["batch_sizes"].values()
    check_decode(one)
    check_decode(three)
    assert three["cache_bytes"] == 3 * one["cache_bytes"]


def test_flatness(options: list[str], capsys: Capture) -> None:
    places = ("--early", "100", "--late", "1000000")
    found = results(capsys, "flatness", *options, "--no-compile", "--rounds", "1", *places)
    assert found["late_over_early"] > 0
    assert set(found["milliseconds_per_token"]) == {"100", "1000000"}
    assert found["cache_bytes"]["100"] == found["cache_bytes"]["1000000"]
    assert found["cache_bytes_after"] == found["cache_bytes"]


def test_stall(options: list[str], capsys: Capture) -> None:
    run = ("--streams", "2", "--prompt-tokens", "90", "--steps", "3", "--max-stall", "4")
    found = results(capsys, "stall", *options, "--no-compile", *run)
    times = found["milliseconds_per_step"]
    alone, beside = times["alone"], times["beside_a_prompt"]
    for each in (alone, beside):
        assert 0 < each["min"] <= each["median"] <= each["p95"]
    assert found["p95_ratio"] == pytest.approx(beside["p95"] / alone["p95"])
    assert found["prompt_tokens_per_second"] == pytest.approx(90 / found["prompt_seconds"])
    assert 1 <= found["steps_beside_a_prompt"] <= 90
    assert found["compiled"] is False
    names = ("streams", "prompt_tokens", "max_stall", "steps")
    assert [found["config"][name] for name in names] == [2, 90, 4.0, 3]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["decode", "--no-compile", "--steps", "2"], "ms per step"),
        (["prefill", "--rounds", "1", "--tokens", "20"], "tokens/s of a prompt of 20 tokens"),
        (["batch", "--no-compile", "--steps", "2", "--batch-size", "2"], "2 streams:"),
        (["flatness", "--no-compile", "--rounds", "1"], "at position 10,000"),
        (
            ["stall", "--no-compile", "--streams", "2", "--steps", "2", "--prompt-tokens", "40"],
            "p95 of a step of 2 streams",
        ),
    ],
)
def test_people_get_a_line(
    command: list[str], words: str, options: list[str], capsys: Capture
) -> None:
    assert run_command("bench", *command, *options, "--threads", "1") == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["decode", "--steps", "0"], "steps=0 is out of range"),
        (
            ["decode", "--batch-size", "0"],
            "batch_size=0 is out of range",
        ),
        (
            ["decode", "--start-position", "5"],
            "start_position=5 is within the cache; choose more than 17",
        ),
        (
            ["decode", "--quantize", "int3"],
            "quantize='int3' is unknown; choose one of auto, none, native, int8, int4",
        ),
        (["decode", "--quantize-cache", "int4"], "quantize_cache='int4' is unknown; choose one of"),
        (["decode", "--dtype", "int8"], "dtype='int8' is unknown; choose one of auto"),
        (["decode", "--threads", "0"], "threads=0 is out of range"),
        (
            ["decode", "--window-size", "0"],
            "window_size=0 is out of range",
        ),
        (
            ["decode", "--num-sink-tokens", "-1"],
            "num_sink_tokens=-1 is out of range",
        ),
        (["decode", "--device", "abacus"], "device='abacus' is unknown; choose one of"),
        (["prefill", "--tokens", "0"], "tokens=0 is out of range"),
        (["prefill", "--rounds", "0"], "rounds=0 is out of range"),
        (
            ["batch", "--batch-size", "0"],
            "batch_size=0 is out of range",
        ),
        (["stall", "--streams", "0"], "streams=0 is out of range"),
        (
            ["stall", "--prompt-tokens", "0"],
            "prompt_tokens=0 is out of range",
        ),
        (["stall", "--steps", "0"], "steps=0 is out of range"),
        (
            ["stall", "--max-stall", "0.5"],
            "max_stall=0.5 is out of range; choose a finite number >= 1",
        ),
        (["flatness", "--rounds", "0"], "rounds=0 is out of range"),
        (["flatness", "--early", "3"], "=3 is within the cache; choose more than 17"),
        (["flatness", "--early", "100", "--late", "100"], "late=100 is not above early=100"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_line(
    command: list[str], message: str, options: list[str], capsys: Capture
) -> None:
    no_compile = [] if command[0] == "prefill" else ["--no-compile"]
    assert run_command("bench", command[0], *options, *no_compile, *command[1:]) == 2
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert printed.out == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_results_that_cannot_be_written_are_refused_at_once(
    command: str, options: list[str], capsys: Capture
) -> None:
    assert run_command("bench", command, *options, "--json", "/no/such/folder/a.json") == 2
    assert "json='/no/such/folder/a.json' cannot be written" in capsys.readouterr().err
