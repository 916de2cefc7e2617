"""Recommended sinks and window of a model, which `streamingllm tune --save` keeps."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError, ModelLoadError, StreamingLLMError

_FIELDS = ("num_sink_tokens", "window_size")


def tuned_config_file(source: str, folder: Path) -> Path:
    """Return the file of a model's recommendation.

    Args:
        source: of the model's weights, as `LanguageModel.source` has it.
        folder: the cache folder.
    """
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", source)[-60:].strip("-.")
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return folder / "tuned" / f"{name}-{digest}.json"


def save_tuned_config(
    source: str, folder: Path, config: StreamConfig, facts: Mapping[str, Any]
) -> Path:
    """Write a recommendation and return its file.

    Args:
        source: of the model's weights.
        folder: the cache folder.
        config: its sinks and its window are kept.
        facts: JSON-able details for readers of the file.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = tuned_config_file(source, folder)
    kept = {name: getattr(config, name) for name in _FIELDS}
    text = json.dumps({"source": source, **kept, **facts}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(
            f"cache_dir={str(folder)!r} cannot be written ({error.strerror}); choose another one"
        ) from error
    return path


def read_tuned_config(source: str, folder: Path) -> StreamConfig:
    """Read the recommendation for a model.

    Raises:
        ConfigError: there is none.
        ModelLoadError: the file is damaged.
    """
    path = tuned_config_file(source, folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["source"] != source:
            raise ValueError(f"it is about {found['source']!r}")
        return StreamConfig(**{name: found[name] for name in _FIELDS})
    except FileNotFoundError:
        raise ConfigError(
            f"tuned=True has no recommendation for {source}; run `streamingllm tune --save` first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, StreamingLLMError) as error:
        raise ModelLoadError(f"{path}: is no recommendation ({error}); delete it") from error
