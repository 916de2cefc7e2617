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
from contextlib import ExitStack

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


def open_wave(name: str, stack: ExitStack) -> Samples:
    """Return the samples of a WAV file.

    Raises:
        ValueError: it is no WAV file, or not mono with 16 bits and 16,000 Hz.
    """
    try:
        file = stack.enter_context(wave.open(name, "rb"))
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{name} cannot be read as WAV: {error}") from None
    found = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
    if found != (1, 16, RATE):
        raise ValueError(
            f"{name} has channels, bits and Hz {found}; convert it: "
            f"ffmpeg -i {name} -ac 1 -ar {RATE} -c:a pcm_s16le converted.wav"
        )
    return Samples(lambda num_bytes: file.readframes(num_bytes // 2))


def utterances(source: Samples) -> Iterator[tuple[float, str]]:
    """Yield when each utterance began, in seconds, and its words."""
    from pocketsphinx import Decoder, Segmenter

    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    for segment in Segmenter(sample_rate=RATE).segment(source):
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
    with ExitStack() as stack:
        try:
            piped = chosen.file == "-"
            source = Samples(sys.stdin.buffer.read) if piped else open_wave(chosen.file, stack)
            for start, text in utterances(source):
                time = f"[{start:.1f} s] " if chosen.times else ""
                print(f"{chosen.speaker}: {time}{text}", flush=True)
        except ModuleNotFoundError:
            parser.error("pocketsphinx is not installed; pip install 'streamingllm[speech]'")
        except ValueError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
