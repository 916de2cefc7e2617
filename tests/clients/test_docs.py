"""The samples of the pages for clients run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = "127.0.0.1:8080"


def samples_of(name: str) -> str:
    """The Python samples of a page, which may build on one another, for one server."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", ["server.md", "clients.md"])
def test_the_samples_of_a_page_run(page: str, url: str) -> None:
    sample = samples_of(page)
    assert SHOWN in sample
    here = sample.replace(SHOWN, url.removeprefix("http://"))
    exec(compile(here, page, "exec"), {"__name__": "sample"})
