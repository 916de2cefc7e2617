"""Models of the Hugging Face hub."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError

from streamingllm.errors import ModelLoadError
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.progress import Progress, watch_growth
from streamingllm.models.quiet import quiet_libraries

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PROBE_SECONDS = 3.0
# Everything a decoder needs, no second copy of its weights and nothing that is unpickled.
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_UNWANTED = ["*/*", "consolidated*"]
_FILES: dict[str, Any] = {"allow_patterns": _WANTED, "ignore_patterns": _UNWANTED}
_SMALL_FILES: dict[str, Any] = {"allow_patterns": ["*.json"], "ignore_patterns": _UNWANTED}


def is_hub_id(name: str) -> bool:
    """Tell whether `name` has the form `organisation/model`."""
    return _HUB_ID.fullmatch(name) is not None


def hub_checkpoint(hub_id: str, progress: Progress, *, weights: bool = True) -> Checkpoint:
    """Return the hub's newest snapshot of a model, or the last one fetched if the hub is silent.

    Files go to the hub client's own cache, shared with other programs; it resumes and verifies.

    Args:
        hub_id: `organisation/model`.
        progress: told about the stage "fetch".
        weights: False to fetch the configuration alone.

    Raises:
        ModelLoadError: there is no such model, or the hub is silent and the model not in its cache.
    """
    online = _hub_answers(hub_id)
    reason = "" if online else "; the hub cannot be reached, and its cache does not have the model"
    subject = f"{hub_id}: cannot be fetched from the hub{reason}"
    with failing_as_load_error(subject), quiet_libraries():
        wanted = _FILES if weights else _SMALL_FILES
        folder = _download(hub_id, wanted, progress) if online else _cached(hub_id, wanted)
    has_weights = any(folder.glob("*.safetensors")) or not weights
    if not (folder / "config.json").is_file() or not has_weights:
        raise ModelLoadError(
            f"model={hub_id!r} has no config.json or no safetensors weights in {folder}; choose a "
            "model that has both"
        )
    return Checkpoint(folder, gguf_file=None, source=f"hub:{hub_id}@{folder.name}")


def _download(hub_id: str, wanted: dict[str, Any], progress: Progress) -> Path:
    planned = snapshot_download(hub_id, **wanted, dry_run=True)
    total_bytes = sum(file.file_size or 0 for file in planned if file.will_download)
    with watch_growth(_cache_of(hub_id), "fetch", total_bytes, progress):
        return Path(snapshot_download(hub_id, **wanted))


def _cached(hub_id: str, wanted: dict[str, Any]) -> Path:
    return Path(snapshot_download(hub_id, **wanted, local_files_only=True))


def _cache_of(hub_id: str) -> Path:
    return Path(HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"


def _hub_answers(hub_id: str) -> bool:
    """Tell within `_PROBE_SECONDS` whether the hub answers at all, be it with a refusal."""
    answered = threading.Event()

    def ask() -> None:
        try:
            HfApi().model_info(hub_id, timeout=_PROBE_SECONDS)
        except HfHubHTTPError:
            pass
        except Exception:  # no name server, no route, offline mode: all the same here
            return
        answered.set()

    # In a thread, because a look-up of the host's name obeys no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PROBE_SECONDS)
    return answered.is_set()
