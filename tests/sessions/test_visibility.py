from __future__ import annotations

import pytest

from streamingllm.sessions import Visibility


@pytest.mark.parametrize(
    ("visibility", "text"),
    [
        (Visibility(9, 9, 9, 0, 0, False), "9 tokens seen, 9 visible; no turns yet"),
        (Visibility(40, 40, 9, 3, 0, False), "40 tokens seen, 40 visible: all turns"),
        (
            Visibility(1000, 64, 9, 12, 6, False),
            "1,000 tokens seen, 64 visible, 936 forgotten; visible: turns 7-12 and the first "
            "9 tokens; forgotten: turns 1-6",
        ),
        (
            Visibility(70, 64, 9, 2, 0, True),
            "70 tokens seen, 64 visible, 6 forgotten; visible: turns 1-2 (1 in part) and the "
            "first 9 tokens",
        ),
        (
            Visibility(200, 64, 9, 2, 1, True),
            "200 tokens seen, 64 visible, 136 forgotten; visible: turn 2 (2 in part) and the "
            "first 9 tokens; forgotten: turn 1",
        ),
    ],
)
def test_it_is_said_in_one_line(visibility: Visibility, text: str) -> None:
    assert visibility.describe() == text
