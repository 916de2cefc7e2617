from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamingllm.memory.pieces import pieces_of


@given(text=st.text(st.sampled_from("ab .\n")), most=st.integers(1, 20))
def test_pieces_make_up_the_text(text: str, most: int) -> None:
    pieces = pieces_of(text, most)
    assert "".join(pieces) == text
    assert pieces == [""] or all(0 < len(piece) <= most for piece in pieces)


def test_pieces_end_with_paragraphs_sentences_or_words() -> None:
    assert pieces_of("one two. three\nfour five", 18) == ["one two. three\n", "four five"]
    assert pieces_of("one two. three four five", 14) == ["one two. ", "three four ", "five"]
    assert pieces_of("one two three", 8) == ["one two ", "three"]
    assert pieces_of("abcdefgh", 3) == ["abc", "def", "gh"]
