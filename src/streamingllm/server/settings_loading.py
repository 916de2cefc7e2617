"""Load settings: flags first, then the environment, then a file, then defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from streamingllm.errors import ConfigError, InputError
from streamingllm.server.setting_fields import facts_of
from streamingllm.server.settings import ServerSettings, setting_fields
from streamingllm.text_files import read_text_file

ENV_PREFIX = "STREAMINGLLM_"


def _as_list(value: Any) -> Any:
    """Return the items of a list that the environment writes as a, b or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


_TYPES: dict[str, Any] = {
    "text": str,
    "texts": Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_list)],
    "integer": int,
    "number": float,
    "flag": bool,
    "bytes": ByteSize,
}


def load_settings(flags: Mapping[str, Any], file: Path | None = None) -> ServerSettings:
    """Return the settings of a server.

    Args:
        flags: settings of the command line, without those that were not given.
        file: TOML; None for none.

    Raises:
        ConfigError: a value is wrong, a name is unknown, or a file cannot be read.
    """
    if file is not None and not file.is_file():
        raise ConfigError(f"config={str(file)!r} is no file; name a TOML file of settings")
    try:
        loaded = _model(file)(**flags)
    except ValidationError as error:
        raise _config_error(error) from error
    except (SettingsError, ValueError) as error:  # TOML that is none, JSON in the environment
        raise ConfigError(f"config={str(file)!r} cannot be read ({error}); mend it") from error
    values = {name: getattr(loaded, name) for name in type(loaded).model_fields}
    values["api_key"] = (*values["api_key"], *_keys_of(values["api_key_file"]))
    return replace(ServerSettings(), **values)


def _model(file: Path | None) -> type[BaseSettings]:
    class Sources(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX, extra="forbid", toml_file=file, hide_input_in_errors=True
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    found: dict[str, Any] = {}
    for setting in setting_fields():
        kind, text = _TYPES[facts_of(setting).kind], facts_of(setting).text
        is_optional = setting.default is None
        annotation = kind | None if is_optional else kind
        found[setting.name] = (annotation, Field(setting.default, description=text))
    return create_model("Settings", __base__=Sources, **found)


def _config_error(error: ValidationError) -> ConfigError:
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return ConfigError(f"{name} is no setting; see `streamingllm serve --help`")
    secrets = {setting.name for setting in setting_fields() if facts_of(setting).is_secret}
    value = "" if name.partition(".")[0] in secrets else f"={problem.get('input')!r}"
    message = str(problem["msg"])
    return ConfigError(f"{name}{value} is wrong: {message[0].lower()}{message[1:]}; change it")


def _keys_of(file: str) -> list[str]:
    if not file:
        return []
    try:
        lines = read_text_file("api_key_file", file, "name another").splitlines()
    except InputError as error:
        raise ConfigError(str(error)) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
