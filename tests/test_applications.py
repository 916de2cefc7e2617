"""Every application runs on its data, or on data made here, and prints its figures."""

from __future__ import annotations

import re
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from streamingllm import LanguageModel

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "applications"
SHARED = ROOT.parent / "shared" / "data"
RECORDINGS = ROOT / "tests" / "recordings"
WITHOUT_FIGURES = {"figures", "transcribe"}
SMALL = {
    "agent": ["--steps", "24", "--cache-size", "320"],
    "book": ["--chapters", "3", "--characters", "1500", "--quotes", "2"],
    "character": ["--characters", "1", "--turns", "30", "--facts", "2"],
    "meeting": ["--turns", "24", "--minutes", "0"],
    "repository": ["--tokens", "1500", "--skip", "700", "--every", "400", "--cache-size", "384"],
    "support_desk": ["--chats", "1", "--turns", "20", "--cache-size", "1024"],
}
BETTER = {  # a figure that the memory must raise, because it counts what is in view
    "book": "quoted sentences recalled",
    "meeting": "questions with evidence in view",
    "support_desk": "chats with the right rule in view",
}


def figures(printed: str) -> dict[str, list[float]]:
    """Return the rows of the printed table by their names."""
    rows = re.findall(r"^(\S.*?)((?:  +-?\d+\.\d{3})+)$", printed, re.MULTILINE)
    return {name.strip(): [float(value) for value in values.split()] for name, values in rows}


def run(name: str, data: Path) -> str:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--data", str(data), *SMALL[name]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("is_shared", [False, True], ids=["made", "real"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_an_application_prints_its_figures(
    name: str, is_shared: bool, tmp_path: Path, default_model: LanguageModel
) -> None:
    if is_shared and (name in ("agent", "repository") or not SHARED.is_dir()):
        pytest.skip("there is no data for it")
    found = figures(run(name, SHARED if is_shared else tmp_path))
    assert found
    assert all(len(values) == len(next(iter(found.values()))) >= 2 for values in found.values())
    counted = re.compile("tokens?|milliseconds|nats")
    shares = [values for measure, values in found.items() if not counted.search(measure)]
    assert shares
    assert all(0 <= share <= 1 for values in shares for share in values)
    if name in BETTER:
        window, remembered = found[BETTER[name]]
        assert window < remembered


def test_a_stream_stays_within_its_cache_whatever_it_has_seen(default_model: LanguageModel) -> None:
    found = figures(run("agent", FOLDER))
    assert found["tokens seen"][0] > 320
    assert set(found["tokens visible"]) == {320.0}


def test_applications_are_short_and_all_run() -> None:
    files = {path.stem: path for path in FOLDER.glob("*.py")}
    assert files.keys() == SMALL.keys() | WITHOUT_FIGURES
    assert all(len(path.read_text().splitlines()) <= 150 for path in files.values())


def transcribe(file: str, samples: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, FOLDER / "transcribe.py", "--speaker", "Elinor", file]
    return subprocess.run(command, input=samples, capture_output=True, check=False)


def test_speech_becomes_lines_of_text() -> None:
    recording = RECORDINGS / "amiable.wav"
    done = transcribe(str(recording))
    said = ["he", "might", "even", "have", "been", "made", "amiable", "himself"]
    speaker, _, text = done.stdout.decode().partition(": ")
    assert speaker == "Elinor"
    assert len([word for word in said if word in text.split()]) >= 7
    with wave.open(str(recording)) as file:
        samples = file.readframes(file.getnframes())
    assert transcribe("-", samples).stdout == done.stdout  # as from a microphone


def test_a_meeting_hears_speech(default_model: LanguageModel) -> None:
    lines = transcribe(str(RECORDINGS / "amiable.wav")).stdout + b"?What might he have been?\n"
    command = [sys.executable, FOLDER / "meeting.py", "--follow", "1"]
    done = subprocess.run(command, input=lines, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "told"), [("absent.wav", "cannot be read"), ("stereo.wav", "ffmpeg")]
)
def test_other_recordings_are_refused_by_name(name: str, told: str, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(bytes(400))
    done = transcribe(str(tmp_path / name))
    assert done.returncode == 2
    assert name in done.stderr.decode()
    assert told in done.stderr.decode()
