"""llm-comply: schemas and rules of the APIs, by a third party."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import MODEL

# A text model refuses images; a server of one model needs no `model` in a request.
KNOWN = {
    "open-responses": {"image-input", "error-handling"},
    "openai-chat": {"chat-image-input", "chat-error-handling"},
    "anthropic": {"anth-image-input"},
}


@pytest.mark.parametrize("api", KNOWN)
def test_the_suite_passes(openai_url: str, api: str) -> None:
    program = Path(sys.executable).with_name("llm-comply")
    ran = subprocess.run(
        [program, "-u", openai_url, "-k", "none", "-m", MODEL, "--format", api, "--json"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    report = json.loads(ran.stdout)
    failed = {test["id"]: test for test in report["results"] if test["status"] == "failed"}
    assert failed.keys() == KNOWN[api], json.dumps(failed, indent=1)
    assert any(test["status"] == "passed" for test in report["results"])
