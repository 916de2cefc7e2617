from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from streamingllm.cluster.stream_splice import StreamDiffersError, StreamSplice
from streamingllm.server.sse import PING


def event(text: str, **fields: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}}
    return f"data: {json.dumps({'choices': [choice], **fields})}\n\n".encode()


def sent_of(splice: StreamSplice, events: Sequence[bytes]) -> list[bytes]:
    return [each for each in events if splice.take(each)]


WHOLE = [event(text) for text in ("", "to", " be", " or", " not", "")] + [b"data: [DONE]\n\n"]


@pytest.mark.parametrize("seed", range(10))
def test_attempts_that_are_cut_anywhere_make_one_stream(seed: int) -> None:
    rng, splice, sent = random.Random(seed), StreamSplice(), []
    for _ in range(4):
        splice.begin_again()
        sent += sent_of(splice, WHOLE[: rng.randrange(len(WHOLE))])
    splice.begin_again()
    sent += sent_of(splice, WHOLE)
    assert sent == WHOLE


def test_comments_pass_and_do_not_count() -> None:
    splice = StreamSplice()
    assert sent_of(splice, [WHOLE[0], PING, WHOLE[1]]) == [WHOLE[0], PING, WHOLE[1]]
    splice.begin_again()
    assert sent_of(splice, [PING, *WHOLE]) == [PING, *WHOLE[2:]]


def test_facts_may_differ_but_not_texts() -> None:
    splice = StreamSplice()
    sent_of(splice, [event("to", seen=3), event(" be")])
    splice.begin_again()
    assert sent_of(splice, [event("to", seen=4), event(" be"), event(" or")]) == [event(" or")]
    splice.begin_again()
    with pytest.raises(StreamDiffersError, match="differs from what was sent"):
        sent_of(splice, [event("to"), event(" see"), event(" or"), event(" not")])
