"""Turn speech into lines of text, without a network.

Reads a WAV file, or with `-` 16-bit mono samples of 16,000 Hz from standard input. Each utterance
becomes a line when it ends.

Example: python examples/applications/transcribe.py talk.wav |
    python examples/applications/meeting.py --follow 1
A microphone: arecord -q -t raw -f S16_LE -r 16000 | python examples/applications/transcribe.py -
Needs PocketSphinx, whose package has an acoustic model of American English:
    pip install 'streamingllm[speech]'
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RATE = 16_000  # samples a second, which the acoustic model expects
_SILENCE = bytes(RATE)  # half a second of it ends the last utterance


class Samples:
    """Read samples of 16 bits, and a silence after the last one.

    Args:
        read: returns as many bytes as it is asked for, or fewer at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._silence = _SILENCE

    def read(self, num_bytes: int) -> bytes:
        """Return as many bytes, or fewer at the end."""
        found = self._read(num_bytes)
        missing = num_bytes - len(found)
        silence, self._silence = self._silence[:missing], self._silence[missing:]
        return found + silence


@contextmanager
def samples_of(name: str) -> Iterator[Samples]:
    """Read a WAV file, or standard input if the name is `-`.

    Raises:
        ValueError: it is no WAV file, or not mono with 16 bits and 16,000 Hz.
    """
    if name == "-":
        yield Samples(sys.stdin.buffer.read)
        return
    try:
        with wave.open(name, "rb") as file:
            found = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            if found != (1, 16, RATE):
                raise ValueError(
                    f"{name} has channels, bits and Hz {found}; convert it: "
                    f"ffmpeg -i {name} -ac 1 -ar {RATE} -c:a pcm_s16le converted.wav"
                )
            yield Samples(lambda num_bytes: file.readframes(num_bytes // 2))
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{name} cannot be read as WAV: {error}") from None


def utterances(samples: Samples) -> Iterator[tuple[float, str]]:
    """Yield when each utterance began, in seconds, and its words."""
    from pocketsphinx import Decoder, Segmenter

    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    for segment in Segmenter(sample_rate=RATE).segment(samples):
        decoder.start_utt()
        decoder.process_raw(segment.pcm, full_utt=True)
        decoder.end_utt()
        if (heard := decoder.hyp()) is not None and heard.hypstr:
            yield segment.start_time, heard.hypstr


def main() -> None:
    """Print a line for each utterance."""
    parser = argparse.ArgumentParser(description="Turn speech into lines of text.")
    parser.add_argument("file", help="a WAV file, or - for samples from standard input")
    parser.add_argument("--speaker", default="Somebody", help="the name before each line")
    parser.add_argument("--times", action="store_true", help="seconds before each line")
    chosen = parser.parse_args()
    try:
        with samples_of(chosen.file) as samples:
            for start, text in utterances(samples):
                time = f"[{start:.1f} s] " if chosen.times else ""
                print(f"{chosen.speaker}: {time}{text}", flush=True)
    except ModuleNotFoundError:
        parser.error("pocketsphinx is not installed; pip install 'streamingllm[speech]'")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
