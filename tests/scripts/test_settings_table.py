"""The table of settings in docs/server.md is current."""

from __future__ import annotations

import pytest

from scripts.settings_table import BEGIN, END, PAGE, main, table, with_table
from streamingllm.server.settings import setting_fields


def test_the_page_is_current() -> None:
    assert main(["--check"]) == 0, "run `python scripts/settings_table.py`"


def test_a_page_with_another_table_is_not() -> None:
    page = PAGE.read_text(encoding="utf-8")
    old = page.replace("| 8080 |", "| 8081 |")
    assert old != page
    assert with_table(old) == page


def test_each_setting_has_one_row_and_what_is_around_is_kept() -> None:
    lines = table().splitlines()
    for setting in setting_fields():
        assert sum(line.startswith(f"| `{setting.name}` |") for line in lines) == 1
    page = with_table(f"before\n{BEGIN}\nwritten by hand\n{END}\nafter\n")
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "by hand" not in page


@pytest.mark.parametrize("page", ["", BEGIN, END])
def test_a_page_without_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="has no"):
        with_table(page)
