from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from streamingllm.cli.output import human_console, write_json
from streamingllm.errors import ConfigError


def test_people_and_programs_do_not_share_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    human_console("-").print("[0] for people")
    write_json("-", {"perplexity": 12.5})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"perplexity": 12.5}
    assert err == "[0] for people\n"
    human_console(None).print("[0] for people")
    assert capsys.readouterr() == ("[0] for people\n", "")


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    write_json(str(path), {"text": "naïve", "segments": (1, 2.5)})
    assert json.loads(path.read_text()) == {"text": "naïve", "segments": [1, 2.5]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_payload_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json(str(path), {"value": object()})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    write_json("-", {"a": math.inf, "b": [math.nan, {"c": -math.inf}], "d": 1e300})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, {"c": None}], "d": 1e300}


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    target = str(tmp_path / "none" / "result.json")
    with pytest.raises(ConfigError, match=r"json=.* cannot be written") as caught:
        write_json(target, {})
    assert "\n" not in str(caught.value)
