from __future__ import annotations

import subprocess

import pytest

from streamingllm.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  what went wrong \nand more"), "what went wrong"),
        (KeyError("name"), "'name'"),
        (ValueError(), "ValueError"),
        (ValueError(" \n "), "ValueError"),
        (subprocess.CalledProcessError(1, "cc", stderr=b"\nno such flag\nmore"), "no such flag"),
        (subprocess.CalledProcessError(1, "cc", stderr=b""), "CalledProcessError"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line
