"""Settings that a file of deployment uses: variables of the environment and flags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamingllm.cli import main
from streamingllm.server.setting_fields import flag_of
from streamingllm.server.settings import setting_fields
from streamingllm.server.settings_loading import ENV_PREFIX

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {f"{ENV_PREFIX}{setting.name.upper()}" for setting in setting_fields()}
FLAGS = {flag_of(setting) for setting in setting_fields()}


def settings_under(
    variables: Mapping[str, str],
    arguments: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    """The settings that the command line loads with these variables and arguments of `serve`."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments, "--print-settings", "--json"])
    assert ended.value.code == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
