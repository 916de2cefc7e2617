from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamingllm import load_model
from streamingllm.cli.chat_commands import ChatCommands
from streamingllm.errors import InputError
from streamingllm.sessions import Conversation
from tests.cli.pseudo_terminal import Terminal
from tests.cli.terminal import run_command
from tests.reference.tiny_chat import write_tiny_chat

Capture = pytest.CaptureFixture[str]
PROGRAM = [sys.executable, "-c", "from streamingllm.cli import main; main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_chat(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def arguments(folder: Path) -> list[str]:
    """A chat with the tiny model, which sees 28 tokens besides the system prompt."""
    return [
        *("chat", "--model", str(folder), "--system", "Be kind.", "--temperature", "0"),
        *("--cache-size", "39", "--max-rewind-tokens", "20", "--max-new-tokens", "9"),
        *("--repetition-penalty", "1"),
    ]


class Talk:
    """Run chats in this process, with lines for standard input."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: Capture, folder: Path) -> None:
        self._patch, self._capture, self._json = patch, capture, folder / "talk.json"

    def __call__(self, arguments: list[str], *lines: str) -> tuple[str, dict[str, Any]]:
        """Return what was shown and what was reported."""
        content = "".join(f"{line}\n" for line in lines).encode()
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert run_command(*arguments, "--json", str(self._json)) == 0
        shown, error = self._capture.readouterr()
        assert error == ""
        return shown, json.loads(self._json.read_text())


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path) -> Talk:
    return Talk(monkeypatch, capsys, tmp_path)


def test_every_answer_is_followed_by_what_is_forgotten(
    arguments: list[str], folder: Path, talk: Talk
) -> None:
    shown, found = talk(arguments, "How are you?", "", "And now?", "Bye")
    lm = load_model(folder, dtype="auto")
    conversation = Conversation(lm, system_prompt="Be kind.", cache_size=39)
    for turn in found["turns"]:
        expected = "".join(conversation.say(turn["user"], max_new_tokens=9))
        assert turn["assistant"] == expected
        assert conversation.visibility.describe() in shown
    assert [turn["user"] for turn in found["turns"]] == ["How are you?", "And now?", "Bye"]
    assert "the answer was cut at max_new_tokens" in shown
    assert "visible: turns 2-3 (2 in part) and the first 11 tokens; forgotten: turn 1]" in shown
    assert found["seen_tokens"] - found["evicted_tokens"] == found["cached_tokens"] == 39
    assert found["forgotten_turns"] == 1
    assert found["config"]["system"] == "Be kind."


def test_nothing_but_json_is_on_standard_output(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n/help\n"))
    assert run_command(*arguments, "--json", "-") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["turns"][0]["user"] == "Hi"
    assert "/rewind" in err


def test_a_byte_order_mark_is_no_text(arguments: list[str], talk: Talk) -> None:
    _, plain = talk(arguments, "Hi", "And now?")
    _, marked = talk(arguments, "\ufeffHi", "And now?")
    assert marked["turns"] == plain["turns"]
    assert marked["seen_tokens"] == plain["seen_tokens"]
    _, blank = talk(arguments, "\ufeff", "Hi", "And now?")
    assert blank["turns"] == plain["turns"]
    shown, _ = talk(arguments, "\ufeff/rewind", "Hi")
    assert "error: " in shown
    _, inside = talk(arguments, "Hi", "\ufeffAnd now?")
    assert inside["turns"][1]["user"] == "\ufeffAnd now?"


def test_turns_are_taken_back(arguments: list[str], talk: Talk) -> None:
    said = ["How are you?", "And now?", "Bye", "Why?", "Hi"]
    _, plain = talk(arguments, *said[:2], "So?")
    shown, found = talk(arguments, *said[:2], "Bye", "/rewind", "So?")
    assert "once more" not in shown
    assert found["turns"] == plain["turns"]
    shown, found = talk(arguments, *said, "/rewind 3", "So?")
    assert "max_rewind_tokens=20: reading the 60 tokens before once more..." in shown
    assert found["turns"] == plain["turns"]


def test_branches(arguments: list[str], talk: Talk) -> None:
    shown, found = talk(arguments, "Hi", "/fork", "And now?", "/switch 1", "Bye", "/branches")
    assert "branch 2, 0 MB; `/switch 1` goes back to branch 1" in shown
    assert "* 1: 2 turns, last: Bye\n  2: 2 turns, last: And now?\n" in shown
    assert [turn["user"] for turn in found["turns"]] == ["Hi", "Bye"]
    _, plain = talk(arguments, "Hi", "Bye")
    assert found["turns"] == plain["turns"]


def test_wrong_commands_lose_nothing(arguments: list[str], talk: Talk, tmp_path: Path) -> None:
    wrong = {
        "/rewind 2": "num_turns=2 is not 1 to 1, the turns so far",
        "/rewind -1": "/rewind -1 has no number; give a whole number after /rewind",
        "/switch 2": "/switch 2 is out of range; choose 1 to 1",
        "/switch": "/switch lacks BRANCH; give it after /switch",
        "/fork now": "/fork takes no 'now'; give /fork alone",
        "/save": "/save lacks FILE; give it after /save",
        f"/save {tmp_path}/none/file": "cannot be written",
        f"/load {tmp_path}/none": "cannot be read",
        f"/load {__file__}": "cannot be read",
        "/sav": "/sav is unknown; choose one of /rewind, /fork, /branches, /switch, /save, /load",
    }
    shown, found = talk(arguments, "Hi", *wrong, "Bye")
    errors = [line for line in shown.splitlines() if "error: " in line]
    assert len(errors) == len(wrong)
    for error, message in zip(errors, wrong.values(), strict=True):
        assert message in error
    _, plain = talk(arguments, "Hi", "Bye")
    assert found["turns"] == plain["turns"]


def test_bytes_that_are_no_text_are_replaced(arguments: list[str], talk: Talk) -> None:
    _, found = talk(arguments, "a\udc80b".encode(errors="surrogateescape").decode("latin-1"))
    assert len(found["turns"]) == 1


def test_it_can_be_left(arguments: list[str], talk: Talk) -> None:
    _, found = talk(arguments, "Hi", "/quit", "Bye")
    assert len(found["turns"]) == 1


def test_ctrl_c_at_the_prompt_leaves_the_line(
    arguments: list[str], talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(("Hi", KeyboardInterrupt, "Bye", EOFError))

    def type_line(prompt: str) -> str:
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", type_line)
    shown, found = talk(arguments)
    assert "(/quit or Ctrl-D leaves)" in shown
    assert [turn["user"] for turn in found["turns"]] == ["Hi", "Bye"]


@contextmanager
def full_disk(max_file_bytes: int) -> Iterator[None]:
    """Let no file grow longer than that, as if the disk had no room for it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_file(arguments: list[str], talk: Talk, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    talk(arguments, "Hi", f"/save {saved}")
    old = saved.read_bytes()
    with full_disk(len(old) // 2):
        shown, found = talk(arguments, "Hi", "And now?", f"/save {saved}", "Bye")
    assert f"error: {saved}: cannot be written" in shown
    assert len(found["turns"]) == 3
    assert saved.read_bytes() == old
    assert {path.name for path in tmp_path.iterdir()} == {"saved", "talk.json"}
    _, found = talk(arguments, f"/load {saved}")
    assert [turn["user"] for turn in found["turns"]] == ["Hi"]


def test_a_saved_chat_goes_on_in_another_process(
    talk: Talk, tmp_path: Path, default_model: object
) -> None:
    options = ["--temperature", "0", "--max-new-tokens", "10", "--dtype", "float32"]
    arguments = ["chat", *options, "--cache-size", "64"]
    saved, result = tmp_path / "saved", tmp_path / "result.json"
    lines = ("My name is Ada and I like the sea.", f"/save {saved}", "What is my name?")
    _, found = talk(arguments, *lines)
    subprocess.run(
        [*PROGRAM, *arguments, "--json", str(result)],
        input=f"/load {saved}\nWhat is my name?\n",
        text=True,
        check=True,
        capture_output=True,
    )
    assert json.loads(result.read_text())["turns"] == found["turns"]


def test_ctrl_c_ends_an_answer_on_a_terminal(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    result = tmp_path / "result.json"
    endless = [*arguments, "--max-new-tokens", "10000000", "--json", str(result)]
    terminal = Terminal()
    device = terminal.theirs
    with subprocess.Popen([*PROGRAM, *endless], stdin=device, stdout=device, stderr=device) as chat:
        os.close(device)
        terminal.wait_for("> ")
        terminal.type("Hi\n")
        terminal.wait_for("Hi\r\n")
        terminal.wait_for("\x1b[?2004l\r")  # the line is taken; what follows is the answer
        terminal.wait_for_anything()
        chat.send_signal(signal.SIGINT)
        assert "[interrupted; " in terminal.wait_for(" tokens seen")
        terminal.wait_for("> ")
        terminal.type("/quit\n")
        assert chat.wait(timeout=60) == 0
    (turn,) = json.loads(result.read_text())["turns"]
    assert turn["user"] == "Hi"
    assert turn["assistant"]


def test_a_paste_of_several_lines_is_one_turn(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    result = tmp_path / "result.json"
    pasted = "def f(x):\n    return x + 1\n\n/quit is no command here"
    terminal = Terminal()
    device = terminal.theirs
    chat_arguments = [*PROGRAM, *arguments, "--json", str(result)]
    with subprocess.Popen(chat_arguments, stdin=device, stdout=device, stderr=device) as chat:
        os.close(device)
        terminal.wait_for("\x1b[?2004h")  # asks the terminal to mark pastes
        terminal.type("\x1b[200~" + pasted.replace("\n", "\r") + "\x1b[201~\r")
        terminal.wait_for(" tokens seen")
        terminal.wait_for("> ")
        terminal.type("/quit\r")
        assert chat.wait(timeout=60) == 0
    (turn,) = json.loads(result.read_text())["turns"]
    assert turn["user"] == pasted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cache-size", "11"], "cache_size=11 leaves no room beside the 11 tokens"),
        (["--top-p", "0"], "top_p=0.0 is out of range"),
        (["--max-new-tokens", "-1"], "max_new_tokens=-1 is out of range"),
        (["--max-rewind-tokens", "-1"], "max_rewind_tokens=-1 is out of range"),
    ],
)
def test_bad_settings_are_one_line(
    options: list[str], message: str, arguments: list[str], capsys: Capture
) -> None:
    assert run_command(*arguments, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_commands_need_no_terminal(folder: Path) -> None:
    conversation = Conversation(load_model(folder), cache_size=64)
    commands = ChatCommands(conversation, show=lambda line: None)
    assert commands.run("/branches") == "* 1: 0 turns, last: -"
    with pytest.raises(InputError, match="there are no turns yet"):
        commands.run("/rewind")
    commands.run("/fork")
    assert commands.conversation is commands.branches[1] is not conversation
    assert not commands.is_over
    commands.run("/quit")
    assert commands.is_over


def test_a_memory_recalls_in_the_open(folder: Path, talk: Talk) -> None:
    chat = ["chat", "--model", str(folder), "--system", "Be kind.", "--temperature", "0"]
    chat += ["--cache-size", "600", "--max-new-tokens", "3", "--memory"]
    told = ["My hamster is called Napoleon."]
    told += [f"The weather of day {number} was dull, and nothing happened." for number in range(12)]
    shown, found = talk(chat, *told, "What is my hamster called?", "Where are crocodiles?")
    expected = 'recalled: turn 1, user: "My hamster is called Napoleon." (for: hamster, call)'
    assert shown.count(expected) == 1
    assert "nothing recalled" in shown
    assert shown.count("not found: nothing about this is visible or in the memory") == 1
    recalled = [(part["turn"], part["text"]) for part in found["recalled"]]
    assert (14, told[0]) in recalled
    assert found["config"]["memory"] is True
    assert "recalled" not in talk(chat[:-1], "Hello")[1]
