"""Which messages of a request are new to a session."""

from __future__ import annotations

from streamingllm.sessions.matching import Alignment, align
from streamingllm.sessions.transcript import Message, Transcript


def said(*texts: str) -> tuple[Message, ...]:
    """Messages; the first letter of each text is the role's."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return tuple(Message.of_text(roles[text[0]], text) for text in texts)


def transcript_of(*texts: str) -> Transcript:
    transcript = Transcript()
    for message in said(*texts):
        transcript.append(message)
    return transcript


def new_texts(alignment: Alignment) -> tuple[int, tuple[str, ...], bool]:
    return alignment.num_kept, tuple(m.text for m in alignment.new), alignment.is_edit


def test_an_empty_session_takes_all() -> None:
    found = align(transcript_of("s"), said("u1", "a1", "u2"))
    assert new_texts(found) == (1, ("u1", "a1", "u2"), False)


def test_a_whole_history_goes_on_in_place() -> None:
    found = align(transcript_of("s", "u1", "a1"), said("u1", "a1", "u2"))
    assert new_texts(found) == (3, ("u2",), False)


def test_only_what_is_new_goes_on_in_place() -> None:
    found = align(transcript_of("s", "u1", "a1"), said("u2"))
    assert new_texts(found) == (3, ("u2",), False)


def test_the_same_words_again_are_said_again() -> None:
    found = align(transcript_of("u1", "a1"), said("u1"))
    assert new_texts(found) == (2, ("u1",), False)


def test_the_last_part_of_a_history_goes_on_in_place() -> None:
    found = align(transcript_of("u1", "a1", "u2", "a2"), said("u2", "a2", "u3"))
    assert new_texts(found) == (4, ("u3",), False)


def test_tool_results_go_on_in_place() -> None:
    found = align(transcript_of("u1", "a1"), said("t1"))
    assert new_texts(found) == (2, ("t1",), False)


def test_an_edited_history_goes_on_from_the_last_common_message() -> None:
    found = align(transcript_of("s", "u1", "a1", "u2", "a2"), said("u1", "a1", "u2b", "a2b", "u3"))
    assert new_texts(found) == (3, ("u2b", "a2b", "u3"), True)


def test_a_regenerated_answer_replaces_the_last_one() -> None:
    found = align(transcript_of("u1", "a1", "u2", "a2"), said("u1", "a1", "u2"))
    assert new_texts(found) == (2, ("u2",), True)


def test_an_answer_that_ends_the_history_goes_on() -> None:
    found = align(transcript_of("u1", "a1"), said("u1", "a1"))
    assert new_texts(found) == (1, ("a1",), False)


def test_an_unrelated_history_replaces_all() -> None:
    found = align(transcript_of("s", "u1", "a1"), said("u9", "a9", "u10"))
    assert new_texts(found) == (1, ("u9", "a9", "u10"), True)
