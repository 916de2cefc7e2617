"""Running, stopping and going on; sums and pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamingllm.errors import ConfigError
from streamingllm.evaluation import evaluation as evaluation_module
from streamingllm.evaluation.caches import parse_caches
from streamingllm.evaluation.evaluation import Evaluation, evaluate
from streamingllm.evaluation.records import Records
from streamingllm.evaluation.score_plot import curve, plot_scores
from streamingllm.evaluation.tasks.base import Job
from streamingllm.evaluation.tasks.passkey import PasskeyTask
from streamingllm.evaluation.tasks.streameval import StreamEvalTask
from tests.evaluation.tasks.evaluating import byte_lm, run

CACHES = ("4+200", "0+204", "dense")
FINGERPRINT = {"model": "tiny", "task_settings": {"queries": 3}}


def record_task() -> StreamEvalTask:
    return StreamEvalTask(2, 3, line_distance=3, lines_per_query=2, keep="answer")


def as_text(found: Evaluation, seed: int = 0) -> str:
    return json.dumps(found.report(seed))  # where NaN equals NaN


class StopError(Exception):
    """Raised in place of a kill."""


def run_until(path: Path, num_parts: int) -> None:
    count = 0

    def stop(job: Job) -> None:
        nonlocal count
        count += 1
        if count == num_parts:
            raise StopError

    records = Records(path, FINGERPRINT)
    with pytest.raises(StopError):
        evaluate(record_task(), byte_lm(), parse_caches(CACHES), records=records, on_part=stop)


def parts_done(path: Path) -> tuple[Evaluation, int]:
    """Go on and count the parts that had to be done."""
    done: list[Job] = []
    records = Records(path, FINGERPRINT)
    caches = parse_caches(CACHES)
    found = evaluate(record_task(), byte_lm(), caches, records=records, on_part=done.append)
    return found, len(done)


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 5, 8, 14])
def test_a_stopped_run_goes_on_where_it_was(
    stopped_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_module, "_SAVE_INTERVAL_SECONDS", -1.0)
    path = tmp_path / "records.jsonl"
    whole = run(record_task(), *CACHES)
    run_until(path, stopped_after)
    found, num_done = parts_done(path)
    assert found.details() == whole.details()
    assert as_text(found) == as_text(whole)
    # Dense streams cannot be saved, so their sample of three parts begins again.
    again = stopped_after % 3 if stopped_after > 12 else 0
    assert num_done == 18 - stopped_after + again
    assert parts_done(path)[1] == 0
    assert [each.name for each in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    whole, _ = parts_done(path)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    found, num_done = parts_done(path)
    assert (found.details(), num_done) == (whole.details(), 3)
    assert path.read_bytes() == content


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    Records(path, FINGERPRINT)
    other = {"model": "tiny", "task_settings": {"queries": 4}}
    with pytest.raises(ConfigError, match=r"other settings \(task_settings.queries\)"):
        Records(path, other)
    path.write_text("no json\n")
    with pytest.raises(ConfigError, match="no file of this command"):
        Records(path, FINGERPRINT)
    with pytest.raises(ConfigError, match="cannot be used"):
        Records(tmp_path / "none" / "records.jsonl", FINGERPRINT)


def test_a_damaged_snapshot_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_module, "_SAVE_INTERVAL_SECONDS", -1.0)
    path = tmp_path / "records.jsonl"
    run_until(path, 2)
    (snapshot,) = tmp_path.glob("*.safetensors")
    snapshot.write_bytes(snapshot.read_bytes()[:100])
    assert parts_done(path)[1] == 18


def test_few_samples_resample_parts_and_many_samples() -> None:
    few, many = run(PasskeyTask(9, 0), "4+200"), run(PasskeyTask(10, 0), "4+200")
    assert (few.resamples_parts, many.resamples_parts) == (True, False)
    assert run(record_task(), "4+200").estimate("4+200", "accuracy").num_clusters == 6
    report = run(record_task(), "4+200").report()
    assert report["interval"] == {"level": 0.95, "resampled": "query"}


def test_differences_are_paired_with_the_first_cache() -> None:
    found = run(record_task(), "4+200", "0+204")
    report = found.report(seed=5)
    difference: Any = report["differences"]["0+204 - 4+200"]["gold_nll"]
    caches = report["caches"]
    values = [caches[label]["gold_nll"]["value"] for label in ("0+204", "4+200")]
    assert difference["value"] == pytest.approx(values[0] - values[1])
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert as_text(found, 5) == json.dumps(report)
    assert as_text(found, 6) != json.dumps(report)


def test_fresh_is_for_tasks_with_questions() -> None:
    with pytest.raises(ConfigError, match="cache='fresh:10'"):
        run(PasskeyTask(1, 0), "fresh:10")


def test_the_plot_averages_runs_of_parts() -> None:
    found = run(record_task(), "4+200", "0+204")
    places, values = curve(found.samples["4+200"], "gold_nll", False)
    assert places == [0, 1, 2]
    first = [sample[0].totals["gold_nll"] for sample in found.samples["4+200"]]
    assert values[0] == pytest.approx(sum(a for a, _ in first) / sum(b for _, b in first))
    assert plot_scores(found).startswith(b"\x89PNG")
