"""Messages that a rollover leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingllm.errors import ConfigError, InputError
from streamingllm.gateway.rollover import Rollover, RolloverSettings
from streamingllm.gateway.token_count import estimated_tokens

LIMIT, ANSWER = 1000, 100
SYSTEM = {"role": "system", "content": "s" * 60}


def rollover(**fields: Any) -> Rollover:
    return Rollover(RolloverSettings(LIMIT, answer_tokens=ANSWER, **fields), count_tokens=len)


def dialogue(sizes: list[int]) -> list[dict[str, Any]]:
    """Return a system prompt and messages of these lengths, from the user and back."""
    roles = ("user", "assistant")
    return [
        SYSTEM,
        *({"role": roles[n % 2], "content": str(n % 10) * size} for n, size in enumerate(sizes)),
    ]


def cost(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["content"]) + 8 for message in messages)


def test_what_fits_is_sent_whole() -> None:
    messages = dialogue([40, 50, 60])
    visible = rollover().visible({"messages": messages})
    assert visible.messages == messages
    assert (visible.first, visible.is_rolled, visible.is_long) == (1, False, False)
    assert visible.facts == {
        "seen_tokens": cost(messages),
        "visible_tokens": cost(messages),
        "forgotten_tokens": 0,
        "first_visible_message": 1,
    }


def test_a_rollover_comes_at_a_users_turn_and_leaves_half() -> None:
    messages, firsts = dialogue([]), []
    for number in range(40):
        messages.append({"role": "user", "content": f"{number:03}" * 20})
        visible = rollover().visible({"messages": messages})
        assert visible.messages[0] == SYSTEM
        assert visible.messages[1]["role"] == "user"
        assert cost(visible.messages) == visible.visible_tokens <= LIMIT - ANSWER
        if visible.is_rolled:
            assert cost(visible.messages) <= LIMIT // 2 + 68
            assert cost(visible.messages) > LIMIT // 2 - 2 * 68  # as much as fits
        firsts.append(visible.first)
        messages.append({"role": "assistant", "content": "a" * 60})
    assert firsts == sorted(firsts)  # what was forgotten stays so
    assert 5 < len({*firsts}) < 15  # few rollovers, or the prefix cache is of no use


@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_any_history_fits_and_forgets_in_order(sizes: list[int]) -> None:
    last = 0
    for end in range(1, len(sizes) + 1, 2):
        messages = dialogue(sizes[:end])
        visible = rollover().visible({"messages": messages})
        assert visible.messages == [SYSTEM, *messages[visible.first :]]
        assert cost(visible.messages) <= LIMIT - ANSWER
        assert messages[visible.first]["role"] == "user"
        assert visible.first >= last
        assert visible.seen_tokens - visible.facts["forgotten_tokens"] == cost(visible.messages)
        last = visible.first


def test_what_was_warmed_is_what_the_next_rollover_sends() -> None:
    messages, num_rolled, warmed = dialogue([]), 0, None
    for number in range(40):
        messages.append({"role": "user", "content": f"{number:03}" * 20})
        body = {"messages": messages}
        visible = rollover().visible(body)
        if visible.is_rolled:
            num_rolled += 1
            assert warmed is not None
            assert visible.messages[:-1] == warmed
        if visible.is_long:
            warmed = rollover().after_next_rollover(body, "a" * 60)
        messages.append({"role": "assistant", "content": "a" * 60})
    assert num_rolled > 4


def test_tool_results_do_not_cut_a_turn() -> None:
    messages = [*dialogue([100, 100, 100, 100, 100]), *[{"role": "tool", "content": "t" * 90}] * 5]
    visible = rollover().visible({"messages": messages})
    assert visible.messages[1]["role"] == "user"
    assert visible.messages[-5:] == messages[-5:]


def test_tools_the_answer_and_recall_take_their_room() -> None:
    messages = dialogue([120, 120, 120, 120, 120])
    assert rollover().visible({"messages": messages}).first == 1
    for more in ({"tools": ["x" * 300]}, {"max_tokens": 400}, {"max_completion_tokens": 400}):
        assert rollover().visible({"messages": messages, **more}).first > 1
    assert rollover(recall_tokens=300).visible({"messages": messages}).first > 1
    assert rollover().visible({"messages": messages}, share=0.6).first > 1


def test_a_turn_that_does_not_fit_alone_is_refused() -> None:
    messages = dialogue([100, 100, 900])
    with pytest.raises(InputError, match=r"the last turn takes about 908 tokens.*leaves 832"):
        rollover().visible({"messages": messages})


def test_estimates_err_on_the_safe_side() -> None:
    assert estimated_tokens("") == 0
    assert estimated_tokens("a") == 1
    assert estimated_tokens("héllo") == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"limit": 10}, "limit=10"),
        ({"keep_share": 0.0}, "keep_share=0.0"),
        ({"keep_share": 0.9, "warm_share": 0.8}, r"0 < keep_share < warm_share"),
        ({"answer_tokens": 600}, r"answer_tokens=600.*leave no room"),
    ],
)
def test_settings_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RolloverSettings(**{"limit": LIMIT, **fields})
