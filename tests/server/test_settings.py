"""Settings by flag, environment, file and default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamingllm.errors import ConfigError
from streamingllm.server.setting_fields import default_of, facts_of
from streamingllm.server.settings import ServerSettings, setting_fields
from streamingllm.server.settings_loading import ENV_PREFIX, load_settings


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text('port = 8001\ncache_size = 100\nmodel_alias = ["a", "b"]\ndisk = "2GB"\n')
    return path


def test_a_flag_beats_the_environment_which_beats_the_file(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}PORT", "8002")
    monkeypatch.setenv(f"{ENV_PREFIX}MAX_STREAMS", "3")
    found = load_settings({"port": 8003}, toml)
    assert (found.port, found.max_streams, found.cache_size) == (8003, 3, 100)
    assert found.default_max_tokens == ServerSettings().default_max_tokens
    assert load_settings({}, toml).port == 8002
    assert load_settings({}).cache_size == ServerSettings().cache_size


def test_lists_and_sizes_are_read(toml: Path) -> None:
    found = load_settings({"host_memory": "500MB", "api_key": ["k1", "k2"]}, toml)
    assert found.model_aliases == (found.model, "a", "b")
    assert (found.disk, found.host_memory) == (2_000_000_000, 500_000_000)
    assert found.keys == ("k1", "k2")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": "x"}, ["port", "'x'"]),
        ({"port": 70_000}, ["port=70000"]),
        ({"eviction": "never"}, ["eviction='never'", "token or turn"]),
        ({"disk": "many"}, ["disk", "'many'"]),
        ({"default_temperature": -1.0}, ["temperature=-1.0"]),
        ({"host": "0.0.0.0"}, ["host='0.0.0.0'", "api_key"]),
        ({"max_streams": 0}, ["max_streams=0"]),
        ({"log_level": "loud"}, ["log_level='loud'", "debug or info"]),
        ({"quantize": "int3"}, ["quantize='int3'", "native or int8 or int4"]),
        ({"api_key": ["k", " "]}, ["api_key is empty"]),
        ({"api_key": ["k"], "metrics_key": "k"}, ["metrics_key"]),
        ({"unheard_of": 1}, ["unheard_of", "no setting"]),
        ({"api_key_file": "/nowhere/keys"}, ["api_key_file='/nowhere/keys'"]),
    ],
)
def test_a_wrong_value_is_named(flags: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file"):
        load_settings({}, tmp_path / "missing.toml")
    for text, word in (("port = [", "wrong.toml"), ("prot = 1", "prot is no setting")):
        path = tmp_path / "wrong.toml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=word):
            load_settings({}, path)


def test_keys_of_a_file_are_added_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# of the team\nsecret-1\n\nsecret-2\n")
    found = load_settings({"api_key": ["secret-0"], "api_key_file": str(path), "host": "0.0.0.0"})
    assert found.keys == ("secret-0", "secret-1", "secret-2")
    assert "secret" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        load_settings({"api_key": {"secret-3": 1}})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_settings({"metrics_key": ["secret-4"]})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_settings({"api_key": '["secret-5'})
    assert "secret" not in str(caught.value)


def test_every_setting_says_what_it_means() -> None:
    for setting in setting_fields():
        facts = facts_of(setting)
        assert facts.text[-1] == "."
        assert len(facts.text.split()) <= 25, setting.name
        assert facts.group
        assert facts.unit or facts.kind != "bytes"
        has_default = setting.default not in ((), "")
        assert bool(default_of(setting)) == has_default or facts.default_text, setting.name


def test_every_example_is_taken_and_is_not_the_default() -> None:
    keys = {"api_key": ["client"]}  # a public address needs one
    for setting in setting_fields():
        facts = facts_of(setting)
        given = [facts.example] if facts.kind == "texts" else facts.example
        if setting.name == "api_key_file":
            continue  # no such file is here
        needed = {"memory": True} if setting.name == "memory_tool" else {}
        found = load_settings({**keys, **needed, setting.name: given})
        assert getattr(found, setting.name) != setting.default, setting.name


@pytest.mark.parametrize("text", ["one,two", "one, two,", '["one", "two"]'])
def test_a_list_in_the_environment_is_plain_or_json(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}API_KEY", text)
    assert load_settings({}).keys == ("one", "two")
