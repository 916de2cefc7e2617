"""The unit of systemd: its settings exist, it drains, and it is locked in."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.settings_used import ENVIRONMENT, FLAGS, ROOT, settings_under

UNIT = ROOT / "deploy" / "streamingllm.service"
VARIABLES = ROOT / "deploy" / "streamingllm.env"
HARDENED = (
    *("LockPersonality", "NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectClock"),
    *("ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs"),
    *("ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces", "RestrictRealtime"),
    *("RestrictSUIDSGID", "RemoveIPC"),
)


def unit() -> dict[str, dict[str, list[str]]]:
    """Sections of the unit; a key may come more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in UNIT.read_text().splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(header[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


SERVICE = unit()["Service"]


def only(key: str) -> str:
    (value,) = SERVICE[key]
    return value


def seconds(value: str) -> int:
    assert value.endswith("s")
    return int(value[:-1])


def variables() -> dict[str, str]:
    """Variables of the file, those that are commented out included."""
    lines = [li for li in VARIABLES.read_text().splitlines() if re.match(r"#?[A-Z_]+=", li)]
    return dict(line.lstrip("#").split("=", 1) for line in lines)


def test_it_starts_serve_with_flags_that_exist() -> None:
    program, command, *rest = shlex.split(only("ExecStart"))
    assert (Path(program).name, command) == ("streamingllm", "serve")
    flags = [word for word in rest if word.startswith("-")]
    assert set(flags) <= FLAGS
    assert rest[rest.index("--data-dir") + 1] == "${STATE_DIRECTORY}"
    assert only("StateDirectory") == "streamingllm"


def test_its_settings_take_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, *rest = shlex.split(only("ExecStart"))
    arguments = [word.replace("${STATE_DIRECTORY}", "/var/lib/streamingllm") for word in rest]
    found = settings_under({}, arguments, monkeypatch, capsys)
    assert found["data_dir"] == "/var/lib/streamingllm"
    # A turn may end and snapshots may be written before the process is killed.
    assert seconds(only("TimeoutStopSec")) >= found["drain_seconds"] + 30
    assert only("KillSignal") == "SIGTERM"
    assert only("KillMode") == "mixed"  # children do not get the first signal


def test_the_file_of_variables_shows_the_defaults_of_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = variables()
    assert shown
    assert set(shown) <= ENVIRONMENT
    defaults = settings_under({}, [], monkeypatch, capsys)
    assert settings_under(shown, [], monkeypatch, capsys) == defaults
    assert only("EnvironmentFile").removeprefix("-") in UNIT.read_text().partition("[Unit]")[0]


def test_it_has_a_user_of_its_own_and_no_rights() -> None:
    assert only("DynamicUser") == "yes"
    assert only("CapabilityBoundingSet") == ""
    assert only("ProtectSystem") == "strict"
    assert only("SystemCallFilter") == "@system-service"
    assert all(only(key) == "yes" for key in HARDENED)
    assert {only("StateDirectoryMode"), only("CacheDirectoryMode")} == {"0700"}
    assert only("UMask") == "0077"


def test_caches_are_in_folders_that_it_may_write() -> None:
    pairs = dict(word.split("=", 1) for word in shlex.split(only("Environment")))
    assert pairs == {"HOME": "%S/streamingllm", "XDG_CACHE_HOME": "%C/streamingllm"}
    assert only("CacheDirectory") == "streamingllm"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_it(tmp_path: Path) -> None:
    program = shlex.split(only("ExecStart"))[0]
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace(program, "/bin/true"))  # not installed here
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])
