from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from tests.cli.terminal import run_command
from tests.models.tiny_package import write_gguf
from tests.reference.tiny_folder import byte_tokenizer

Capture = pytest.CaptureFixture[str]


def test_a_model_that_can_stream(tiny_folder: Path, capsys: Capture) -> None:
    assert run_command("inspect", str(tiny_folder), "--window-size", "28", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["can_stream"] is True
    assert found["refusal"] is None
    assert found["family"] == "llama"
    assert found["trained_length"] == 64
    assert found["bytes_per_cached_token"] == 2 * 2 * 2 * 8 * 4
    assert found["cache_bytes"] == 32 * found["bytes_per_cached_token"]
    (layers,) = found["layers"]
    assert (layers["count"], layers["attention"], layers["position_encoding"]) == (
        *(2, "global", "rope"),
    )
    assert found["config"]["window_size"] == 28
    assert found["versions"]["transformers"]


def test_people_get_a_table(tiny_folder: Path, capsys: Capture) -> None:
    assert run_command("inspect", str(tiny_folder)) == 0
    printed = capsys.readouterr().out
    assert "64 tokens" in printed
    assert "2 key/value heads of size 8" in " ".join(printed.split())
    assert "0.3 MB for 4 + 1,020 tokens" in printed


def test_a_model_that_cannot_stream_is_no_error(tmp_path: Path, capsys: Capture) -> None:
    tokenizer = byte_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=2, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert run_command("inspect", str(tmp_path), "--json", "-") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["can_stream"] is False
    assert "learned" in found["refusal"]
    assert found["layers"] == []
    assert "no: gpt2 cannot stream" in " ".join(printed.err.split())


def test_the_default_model(default_model: object, capsys: Capture) -> None:
    assert run_command("inspect") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "trained length 8,192 tokens" in printed
    assert "30 global, positions rope, 3 key/value heads of size 64" in printed
    assert "can stream yes" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window-size", "0"], "window_size=0 is out of range"),
        (
            ["--num-sink-tokens", "-4"],
            "num_sink_tokens=-4 is out of range",
        ),
    ],
)
def test_wrong_numbers_are_refused_before_loading(
    options: list[str], message: str, capsys: Capture
) -> None:
    assert run_command("inspect", "/no/such/model", *options) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


_PROGRAM = """
import contextlib, io, sys
from streamingllm.cli import main
with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
    main(["inspect", sys.argv[1]])
assert "can stream" in output.getvalue()
print("transformers" in sys.modules)
"""


def test_a_known_family_is_described_without_transformers(
    tiny_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    for name in (tiny_folder, path):
        command = [sys.executable, "-c", _PROGRAM, str(name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n", name
