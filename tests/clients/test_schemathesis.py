"""schemathesis: requests of a third party, made of our description and of the specification."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import serving
from tests.server.open_responses import specification, without_discriminators

OUR_CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance"),
)
SHORT_ANSWERS = {"default-max-tokens": 4, "turn-seconds": 1}


@pytest.fixture(scope="module")
def short_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose answers are short."""
    with serving(tmp_path_factory.mktemp("short"), **SHORT_ANSWERS) as url:
        yield url


def test_no_request_of_our_description_breaks_the_server(short_url: str, tmp_path: Path) -> None:
    report = run(f"{short_url}/openapi.json", short_url, OUR_CHECKS, 8, tmp_path)
    assert num_tested(report) >= 36, report


def test_no_request_of_the_specification_breaks_the_server(short_url: str, tmp_path: Path) -> None:
    path = tmp_path / "open-responses.json"
    path.write_text(json.dumps(without_discriminators(specification())))
    report = run(str(path), f"{short_url}/v1", ("not_a_server_error",), 60, tmp_path)
    assert num_tested(report) >= 1, report


def num_tested(report: str) -> int:
    """Operations that got requests."""
    found = re.search(r"Tested: (\d+)", report)
    assert found is not None, report
    return int(found.group(1))


def run(document: str, url: str, checks: tuple[str, ...], max_examples: int, folder: Path) -> str:
    """Send requests made of a document, and return the report of a run without failures.

    Args:
        document: its path or address.
        url: of the server.
        checks: of schemathesis.
        max_examples: of each operation.
        folder: for what schemathesis keeps.
    """
    program = Path(sys.executable).with_name("schemathesis")
    ran = subprocess.run(
        [
            *(program, "run", document, "--url", url, "--checks", ",".join(checks)),
            *("--phases", "fuzzing", "--max-examples", str(max_examples), "--seed", "1"),
            *("--generation-database", "none", "--no-color", "--request-timeout", "60"),
            *("--suppress-health-check", "all", "--continue-on-failure"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    return ran.stdout
