from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from streamingllm.errors import InputError
from streamingllm.sessions import ContentPart, Message, ToolCall, Transcript, Visibility


@dataclass
class Pair:
    """A transcript beside plain lists: its messages, and which of them begin a turn."""

    transcript: Transcript
    messages: list[Message]
    begins: list[bool]

    def turns(self) -> list[list[Message]]:
        turns: list[list[Message]] = []
        for message, begins in zip(self.messages, self.begins, strict=True):
            if begins:
                turns.append([])
            if turns:
                turns[-1].append(message)
        return turns


class Transcripts(RuleBasedStateMachine):
    """Transcripts that fork each other, each beside the lists that it should equal."""

    pairs = Bundle("pairs")

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Pair] = []

    @rule(target=pairs)
    def begin(self) -> Any:
        self.all.append(Pair(Transcript(), [], []))
        return self.all[-1]

    @rule(
        pair=pairs,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        gap=st.integers(0, 2),
        num_tokens=st.integers(0, 4),
        begins_turn=st.booleans(),
    )
    def append(self, pair: Pair, role: str, gap: int, num_tokens: int, begins_turn: bool) -> None:
        first = gap + (pair.messages[-1].stop if pair.messages else 0)
        message = replace(
            Message.of_text(role, "Hi"),
            first=first,
            stop=first + num_tokens,
            begins_turn=begins_turn,
        )
        pair.transcript.append(message)
        pair.messages.append(message)
        pair.begins.append(begins_turn)

    @rule(target=pairs, pair=pairs)
    def fork(self, pair: Pair) -> Any:
        self.all.append(Pair(pair.transcript.fork(), [*pair.messages], [*pair.begins]))
        return self.all[-1]

    @rule(pair=pairs, data=st.data())
    def truncate(self, pair: Pair, data: st.DataObject) -> None:
        length = data.draw(st.integers(0, len(pair.messages)))
        pair.transcript.truncate(length)
        del pair.messages[length:], pair.begins[length:]

    @invariant()
    def equal_their_models(self) -> None:
        for pair in self.all:
            transcript, messages = pair.transcript, pair.messages
            assert [*transcript] == messages
            assert len(transcript) == len(messages)
            turns = pair.turns()
            assert [transcript.turn(n) for n in range(transcript.num_turns)] == turns
            end = messages[-1].stop if messages else 0
            for position in range(-1, end + 2):
                found = [m for m in messages if m.first <= position < m.stop]
                assert transcript.at(position) == (found[0] if found else None)
                ended = sum(turn[-1].stop <= position for turn in turns)
                assert transcript.num_turns_before(position) == ended

    @rule(pair=pairs, pinned=st.integers(0, 5), window=st.integers(1, 9), more=st.integers(0, 3))
    def look(self, pair: Pair, pinned: int, window: int, more: int) -> None:
        seen = more + (pair.messages[-1].stop if pair.messages else 0)
        visible = Visibility.of(
            pair.transcript,
            num_seen_tokens=seen,
            num_pinned_tokens=pinned,
            first_visible=seen - window,
        )
        in_window = set(range(max(0, seen - window), seen))
        assert visible.num_visible_tokens == len(in_window | set(range(min(pinned, seen))))
        assert visible.num_forgotten_tokens == seen - visible.num_visible_tokens
        shown = [
            any(p >= seen - window for p in range(turn[0].first, turn[-1].stop))
            or (turn[-1].stop > max(0, seen - window))
            for turn in pair.turns()
        ]
        assert visible.num_turns == len(shown)
        assert visible.num_forgotten_turns == shown.count(False)


Transcripts.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
TestTranscripts = Transcripts.TestCase


def test_messages_stand_one_after_the_other() -> None:
    transcript = Transcript()
    transcript.append(replace(Message.of_text("user", "Hi"), first=3, stop=7))
    for first, stop in ((6, 9), (9, 8), (-1, 2)):
        with pytest.raises(InputError, match=f"first={first}, stop={stop} of a message overlap"):
            transcript.append(replace(Message.of_text("user", "Hi"), first=first, stop=stop))
    assert len(transcript) == 1


def test_messages_are_compared_as_they_were_sent() -> None:
    call = ToolCall("call_1", "add", '{"a": 1}')
    sent = Message("assistant", (ContentPart("a"), ContentPart("b")), tool_calls=(call,))
    assert sent.is_same_as_sent(replace(sent, id="other", first=7, stop=9, begins_turn=True))
    assert sent.text == "a\nb"
    for other in (
        replace(sent, role="user"),
        replace(sent, parts=(ContentPart("a"),)),
        replace(sent, tool_calls=()),
        replace(sent, tool_call_id="call_1"),
        replace(sent, name="Ada"),
    ):
        assert not sent.is_same_as_sent(other)


def test_ids_are_unique_and_parts_are_text() -> None:
    assert Message("user").id != Message("user").id
    with pytest.raises(InputError, match="type='image' of a content part is not 'text'"):
        ContentPart("x.png", type="image")
