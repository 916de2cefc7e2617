"""schemathesis: requests of a third party, made of the description that the server gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.clients.conftest import serving

CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance"
SHORT_ANSWERS = {"default-max-tokens": 4, "turn-seconds": 1}


def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    with serving(tmp_path, **SHORT_ANSWERS) as url:
        ran = subprocess.run(
            [
                *(program, "run", f"{url}/openapi.json", "--url", url, "--checks", CHECKS),
                *("--phases", "fuzzing", "--max-examples", "20", "--seed", "1"),
                *("--generation-database", "none", "--no-color", "--request-timeout", "60"),
                "--continue-on-failure",
            ],
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert ran.returncode == 0, ran.stdout[-8000:]
