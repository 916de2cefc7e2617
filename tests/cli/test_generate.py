from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamingllm import LanguageModel, Stream, StreamConfig, load_model
from tests.cli.terminal import run_command
from tests.reference.tiny_chat import write_tiny_chat

Capture = pytest.CaptureFixture[str]
PROMPT = "All work and no play makes Jack a dull boy."
PROGRAM = [sys.executable, "-c", "from streamingllm.cli import main; main()"]


@pytest.fixture
def arguments(tiny_folder: Path) -> list[str]:
    """A run of the tiny model whose prompt is longer than its window."""
    return [
        *("generate", PROMPT, "--model", str(tiny_folder), "--dtype", "float64"),
        *("--num-sink-tokens", "2", "--window-size", "10", "--max-new-tokens", "80"),
    ]


def results(capture: Capture, *arguments: str) -> dict[str, Any]:
    """Run with `--json -` and return what is on standard output, which must be that alone."""
    assert run_command(*arguments, "--json", "-") == 0
    found: dict[str, Any] = json.loads(capture.readouterr().out)
    return found


def test_it_writes_what_a_stream_writes(
    arguments: list[str], tiny_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    lm = load_model(tiny_folder, dtype="float64")
    stream = Stream(lm.model, StreamConfig(2, 10))
    stream.feed(lm.encode(PROMPT), logits="none")
    expected = lm.decode(list(stream.generate(80)))

    path = tmp_path / "result.json"
    assert run_command(*arguments, "--json", str(path)) == 0
    assert capsys.readouterr() == (expected, "")
    found = json.loads(path.read_text())
    assert found["text"] == expected
    assert found["finish_reason"] == "length"
    counts = ("tokens", "prompt_tokens", "seen_tokens", "cached_tokens", "evicted_tokens")
    assert [found[name] for name in counts] == [80, 43, 123, 12, 111]
    assert found["cache_bytes"] == stream.nbytes
    assert found["tokens_per_second"] == pytest.approx(80 / found["seconds"])
    assert found["config"]["window_size"] == 10
    assert {"versions", "hardware", "seed"} <= set(found)


def test_the_prompt_comes_from_a_file_or_standard_input(
    arguments: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    del arguments[1]
    path = tmp_path / "prompt.txt"
    path.write_text(PROMPT)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PROMPT.encode())))
    texts = {results(capsys, *arguments, *prompt)["text"] for prompt in (
        [PROMPT], ["--prompt-file", str(path)], ["--prompt-file", "-"]
    )}  # fmt: skip
    assert len(texts) == 1


def test_a_byte_order_mark_is_no_part_of_a_prompt(
    arguments: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = b"\xef\xbb\xbf" + PROMPT.encode()
    path = tmp_path / "prompt.txt"
    path.write_bytes(marked)
    expected = results(capsys, *arguments)["text"]
    del arguments[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(marked)))
    for source in (str(path), "-"):
        found = results(capsys, *arguments, "--prompt-file", source)
        assert (found["text"], found["prompt_tokens"]) == (expected, len(PROMPT))
    path.write_bytes(b"\xef\xbb\xbf")
    assert run_command(*arguments, "--prompt-file", str(path)) == 2
    assert capsys.readouterr().err.startswith("error: prompt is empty")


def test_sampling_is_repeatable_by_its_seed(arguments: list[str], capsys: Capture) -> None:
    options = [*arguments, "--temperature", "1.5", "--top-k", "50", "--top-p", "0.95"]
    options += ["--min-p", "0.01", "--repetition-penalty", "1.2"]
    drawn = results(capsys, *options)
    again = results(capsys, *options, "--seed", str(drawn["seed"]))
    assert again["text"] == drawn["text"]
    assert again["config"] == drawn["config"]
    assert results(capsys, *options, "--seed", str(drawn["seed"] + 1))["text"] != drawn["text"]


def test_it_ends_before_a_stop_string(arguments: list[str], capsys: Capture) -> None:
    text = results(capsys, *arguments)["text"]
    first, second = text[20:23], text[40:43]
    found = results(capsys, *arguments, "--stop", second, "--stop", first)
    assert found["finish_reason"] == "stop"
    assert found["text"] == text[: text.index(first)]


def test_end_tokens_can_be_ignored(
    arguments: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LanguageModel, "eos_token_ids", frozenset(range(257)))
    found = results(capsys, *arguments)
    assert (found["tokens"], found["finish_reason"]) == (1, "stop")
    assert results(capsys, *arguments, "--ignore-end-tokens")["tokens"] == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window-size", "0"], "window_size=0 is out of range"),
        (["--num-sink-tokens", "-1"], "num_sink_tokens=-1 is out of range"),
        (["--temperature", "-1"], "temperature=-1.0 is out of range"),
        (["--max-new-tokens", "-1"], "max_new_tokens=-1 is out of range"),
        (["--seed", "-1"], "seed=-1 is out of range"),
        (["--stop", ""], "stop_strings contains ''; give each"),
        (["--prompt-file", "-"], "prompt is missing or given twice"),
        (["--chat"], "has no chat template"),
    ],
)
def test_bad_settings_are_one_line(
    options: list[str], message: str, arguments: list[str], capsys: Capture
) -> None:
    assert run_command(*arguments, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", None])
def test_bad_prompts_are_one_line(
    content: bytes | None, arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    del arguments[1]
    assert run_command(*arguments, "--prompt-file", str(path)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: prompt")
    assert err.count("\n") == 1


def test_ctrl_c_keeps_what_is_written(arguments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    endless = [*arguments, "--max-new-tokens", "10000000", "--json", str(path)]
    with subprocess.Popen(
        [*PROGRAM, *endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        begun = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    found = json.loads(path.read_text())
    assert found["finish_reason"] == "cancelled"
    assert found["text"] == (begun + out).decode()


def test_the_default_model_answers_a_user(default_model: LanguageModel, capsys: Capture) -> None:
    question = ["generate", "What is the capital of France?", "--chat", "--dtype", "float32"]
    found = results(capsys, *question, "--max-new-tokens", "12")
    assert "Paris" in found["text"]
    assert found["config"]["model"] == default_model.name


@pytest.mark.parametrize(("is_chat", "num_tokens"), [(True, len("u:<s>~a:")), (False, 1)])
def test_marks_in_what_a_user_says_are_text(
    is_chat: bool, num_tokens: int, tmp_path: Path, capsys: Capture
) -> None:
    folder = write_tiny_chat(tmp_path / "chat")
    arguments = ["generate", "<s>", "--model", str(folder), "--max-new-tokens", "1"]
    assert run_command(*arguments, *(["--chat"] if is_chat else []), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == num_tokens
