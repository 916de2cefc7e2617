"""The Dockerfile: its stages, its user, and settings that the server has."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from streamingllm.cli.app import app
from tests.deploy.settings_used import ENVIRONMENT, ROOT, settings_under


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str

    def words(self) -> list[str]:
        """The words of its JSON form, else those of a shell."""
        found: list[str] = (
            json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)
        )
        return found


def instructions() -> list[Instruction]:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


ALL = instructions()
LAST = ALL[max(k for k, found in enumerate(ALL) if found.name == "FROM") :]


def named(name: str, among: list[Instruction] = ALL) -> list[Instruction]:
    return [found for found in among if found.name == name]


def environment() -> dict[str, str]:
    """Variables of the last stage."""
    pairs = (word.partition("=") for found in named("ENV", LAST) for word in found.words())
    return {name: value for name, _, value in pairs}


def health_command() -> list[str]:
    (check,) = named("HEALTHCHECK", LAST)
    command: list[str] = json.loads(check.text.partition("CMD")[2])
    return [sys.executable, *command[1:]]


def test_there_are_two_stages_of_one_pinned_image() -> None:
    stages = named("FROM")
    assert [found.text.split()[0] for found in stages] == ["python:${PYTHON}"] * 2
    (image,) = (found.text for found in named("ARG") if found.text.startswith("PYTHON="))
    assert re.fullmatch(r"PYTHON=3\.\d+-slim-[a-z]+", image)
    python = tuple(map(int, image.removeprefix("PYTHON=").partition("-")[0].split(".")))
    assert python >= (3, 11)
    assert "g++" not in " ".join(found.text for found in ALL if found not in LAST)


def test_packages_come_from_the_constraints_alone() -> None:
    installs = [found.text for found in named("RUN") if "pip install" in found.text]
    assert len(installs) == 2
    assert all("-c constraints.txt" in text for text in installs)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    torch, rest = installs
    assert torch.endswith(" torch")
    assert "${TORCH_INDEX}" in torch
    assert "index" not in rest
    (extras,) = re.findall(r"\.\[([\w,]+)\]", rest)
    declared = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", declared, re.MULTILINE) for extra in extras.split(","))


def test_a_layer_keeps_no_lists_and_no_cache() -> None:
    for found in named("RUN"):
        if "apt-get" in found.text:
            assert "--no-install-recommends" in found.text
            assert "rm -rf /var/lib/apt/lists/*" in found.text
    assert "PIP_NO_CACHE_DIR=1" in " ".join(found.text for found in named("ENV"))
    assert not named("ADD")


def test_the_server_runs_as_a_user_that_owns_the_volume() -> None:
    (user,), (volume,) = named("USER", LAST), named("VOLUME", LAST)
    uid, gid = user.text.split(":")
    assert int(uid) > 0
    (made,) = (found.text for found in named("RUN", LAST) if "useradd" in found.text)
    assert f"--uid {uid} --gid {gid}" in made
    assert f"install -d -o {uid} -g {gid} -m 0700 {volume.words()[0]}" in made
    assert ALL.index(user) < ALL.index(named("ENTRYPOINT")[0])
    (folder,) = volume.words()
    for name in ("STREAMINGLLM_DATA_DIR", "XDG_CACHE_HOME", "HOME"):
        assert f"{environment()[name]}/".startswith(f"{folder}/"), name


def test_its_variables_are_settings_and_take_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = {name: v for name, v in environment().items() if name.startswith("STREAMINGLLM_")}
    assert set(ours) <= ENVIRONMENT
    assert not any("KEY" in name for name in environment())
    found = settings_under({**ours, "STREAMINGLLM_API_KEY": "KEY"}, [], monkeypatch, capsys)
    assert found["host"] == "0.0.0.0"
    assert found["data_dir"] == ours["STREAMINGLLM_DATA_DIR"]
    (exposed,) = named("EXPOSE", LAST)
    assert found["port"] == int(exposed.text)
    assert found["api_key"] == 1


def test_the_entry_is_a_command_in_exec_form() -> None:
    (entry,) = named("ENTRYPOINT", LAST)
    program, command = entry.words()
    assert entry.text.startswith("[")  # without a shell, the server gets the signal
    assert program in (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[2]
    assert command in {getattr(found.callback, "__name__", "") for found in app.registered_commands}
    (signal,) = named("STOPSIGNAL", LAST)
    assert signal.text == "SIGTERM"


def test_the_check_of_health_asks_a_server_that_is_ready(server: str) -> None:
    port = urlsplit(server).port
    variables = {**os.environ, "STREAMINGLLM_PORT": str(port)}
    assert subprocess.run(health_command(), env=variables).returncode == 0
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        free = {**variables, "STREAMINGLLM_PORT": str(nobody.getsockname()[1])}
        done = subprocess.run(health_command(), env=free, capture_output=True)
    assert done.returncode != 0


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [
        word for found in named("COPY") if "--from" not in found.text for word in found.words()[:-1]
    ]
    assert copied
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for path in copied:
        assert (ROOT / path).exists(), path
        ignored = False
        for rule in rules:
            if fnmatch.fnmatch(path, rule.removeprefix("!")):
                ignored = not rule.startswith("!")
        assert not ignored, path
    assert rules[0] == "*"  # nothing else, such as .git, is sent
