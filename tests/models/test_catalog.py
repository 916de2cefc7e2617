from __future__ import annotations

import re

import pytest

from streamingllm.errors import ModelLoadError
from streamingllm.models import CATALOG, DEFAULT_MODEL, CatalogEntry, locate, locate_checkpoint
from streamingllm.models.hub import is_hub_id


def test_a_dozen_models_stand_beside_the_default() -> None:
    assert next(iter(CATALOG)) == DEFAULT_MODEL
    assert len(CATALOG) > 12
    assert len({entry.hub_id for entry in CATALOG.values()}) == len(CATALOG)


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_an_entry_is_plausible(entry: CatalogEntry) -> None:
    assert CATALOG[entry.name] is entry
    assert re.fullmatch(r"[a-z0-9.-]+", entry.name)
    assert is_hub_id(entry.hub_id)
    bytes_each = entry.weight_bytes / entry.num_parameters
    assert 0.5 < bytes_each < 3
    size = re.search(r"([\d.]+)([BbMm])\b", entry.hub_id)
    if size is not None:  # what the name promises
        promised = float(size[1]) * (1e9 if size[2] in "Bb" else 1e6)
        assert 0.7 < entry.num_parameters / promised < 1.3
    assert entry.gated == (entry.license in ("gemma", "llama3.2"))
    assert (entry.packaged is not None) == (entry.name == DEFAULT_MODEL)


@pytest.mark.parametrize("name", ["qwen3-0.6b", "llama3.2-1b"])
def test_without_a_hub_the_error_is_one_line(name: str) -> None:
    with pytest.raises(ModelLoadError, match="the hub cannot be reached") as caught:
        locate_checkpoint(name)
    message = str(caught.value)
    assert message.startswith(f"model={name!r}: {CATALOG[name].hub_id}: ")
    assert ("accept its licence" in message) == CATALOG[name].gated
    assert "\n" not in message


def test_each_is_asked_of_the_hub_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub_checkpoint(hub_id: str, *args: object, **options: object) -> None:
        asked.append(hub_id)

    monkeypatch.setattr(locate, "hub_checkpoint", hub_checkpoint)
    monkeypatch.setattr(locate, "cached_package", lambda *args, **options: None)
    for name in CATALOG:
        locate_checkpoint(name)
    assert asked == [entry.hub_id for entry in CATALOG.values()]
