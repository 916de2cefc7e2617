"""The shell commands of docs/server.md run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
SHOWN = "http://127.0.0.1:8080"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_for_curl_are_answered(smol_server: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if block.startswith(f"URL={SHOWN}"))
    checked = 'set -e\ncurl() { command curl --fail --silent --show-error "$@"; }\n'
    script = checked + block.replace(SHOWN, smol_server)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my-chat.session").stat().st_size > 0
