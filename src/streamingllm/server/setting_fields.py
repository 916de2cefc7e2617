"""Fields of settings: each with its group, unit, meaning and an example."""

from __future__ import annotations

import shlex
from dataclasses import Field, dataclass, field
from typing import Any, Literal

Kind = Literal["text", "texts", "integer", "number", "flag", "bytes"]
_FACTS = "facts"
_UNITS_OF_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True)
class SettingFacts:
    """Describe a setting to those who load, list or document it.

    Args:
        group: of settings that belong together.
        kind: of its values.
        text: its meaning, one sentence.
        example: a value, as it is written on the command line.
        unit: of its values; "" for none.
        choices: all values that are allowed; empty for any.
        default_text: a default that depends on the machine or on another setting.
        is_secret: whether its value is never shown.
    """

    group: str
    kind: Kind
    text: str
    example: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    default_text: str = ""
    is_secret: bool = False


def setting(
    group: str, default: Any, kind: Kind, text: str, example: str, unit: str = "", **more: Any
) -> Any:
    """Return a field of a dataclass of settings; see `SettingFacts`."""
    facts = SettingFacts(group, kind, text, example, unit, **more)
    return field(default=default, repr=not facts.is_secret, metadata={_FACTS: facts})


def facts_of(a_setting: Field[Any]) -> SettingFacts:
    """Return the description of a setting."""
    facts: SettingFacts = a_setting.metadata[_FACTS]
    return facts


def flag_of(a_setting: Field[Any]) -> str:
    """Return the flag of a setting on the command line."""
    return f"--{a_setting.name.replace('_', '-')}"


def choices_of(a_setting: Field[Any]) -> str:
    """Return a sentence with all values that are allowed; "" for any."""
    choices = facts_of(a_setting).choices
    return f" One of {', '.join(choices)}." if choices else ""


def example_of(a_setting: Field[Any]) -> str:
    """Return a setting on the command line, with its example."""
    flag, facts = flag_of(a_setting), facts_of(a_setting)
    if facts.kind == "flag":
        return flag.replace("--", "--no-", 1) if a_setting.default else flag
    return f"{flag} {shlex.quote(facts.example)}"


def default_of(a_setting: Field[Any]) -> str:
    """Return the default of a setting as people write it, without its unit; "" for none."""
    facts = facts_of(a_setting)
    default: Any = a_setting.default
    if facts.default_text:
        return facts.default_text
    if facts.kind == "flag":
        return "on" if default else "off"
    if facts.kind == "bytes":
        return next(f"{default // size}{name}" for size, name in _UNITS_OF_BYTES if default >= size)
    if facts.kind == "number":
        return f"{default:g}" if default < 1e6 else f"{default:.0f}"
    return "" if default == () else str(default)
