"""Fields that a checkpoint's `config.json` states.

transformers' configuration classes take seconds to import. These are the fields before such a class
fills them in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def folder_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of a folder's `config.json`."""
    fields = json.loads((folder / "config.json").read_text())
    assert isinstance(fields, dict)
    return fields
