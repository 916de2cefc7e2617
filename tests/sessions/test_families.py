"""The real templates of families that people run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingllm import LanguageModel
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.sessions import ChatTemplate, ContentPart, Message, ToolCall
from tests.reference.tiny_lm import tiny_lm
from tests.sessions.families import FAMILIES, Family

SYSTEM = "Be kind."
CALL = ToolCall("abcdefghi", "add", '{"a": 1}')
RESULT = Message("tool", (ContentPart("42"),), tool_call_id=CALL.id, name=CALL.name)
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add one.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number", "description": "a number"}},
            "required": ["a"],
        },
    },
}
BY_NAME = {family.name: family for family in FAMILIES}

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def rendered(lm: LanguageModel, messages: list[dict[str, Any]], **options: Any) -> str:
    """The whole chat, as transformers renders it."""
    tokenizer: Any = lm.tokenizer
    whole = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **options
    )
    assert isinstance(whole, str)
    return whole


def system_of(family: Family) -> str:
    return SYSTEM if family.has_system else ""


def begin(family: Family, **options: Any) -> tuple[LanguageModel, ChatTemplate, list[Any]]:
    lm, system = family.lm(tiny_lm()), system_of(family)
    messages = [{"role": "system", "content": system}] if system else []
    return lm, ChatTemplate(lm, system, **options), messages


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


@each_family
def test_pieces_make_up_the_whole(family: Family) -> None:
    lm, chat, messages = begin(family)
    pieces, are_equal = chat.opening, []
    for turn, text in enumerate(("How are you?", "And now?", "Bye")):
        pieces += chat.next_turn(text) if turn else chat.first_turn(text)
        messages.append(said("user", text))
        are_equal.append(pieces == rendered(lm, messages))
        messages.append(said("assistant", "Fine."))
        pieces += f"{family.lead}Fine."
    assert are_equal[0]
    assert all(are_equal) == family.is_stable
    # What is not stable is what was sent: each piece is the end of the chat at its time.
    assert rendered(lm, messages[:-1]).endswith(chat.next_turn("Bye").removeprefix(family.end))


@each_family
def test_a_new_piece_ends_the_whole_even_where_old_messages_change(family: Family) -> None:
    lm, chat, messages = begin(family)
    thought = "<think>\nWhy not?\n</think>\n\nFine."
    answer = "Fine." if family.name == "gpt-oss" else thought
    messages += [said("user", "Hi"), said("assistant", answer), said("user", "Bye")]
    assert rendered(lm, messages).endswith(chat.next_turn("Bye").removeprefix(family.end))


@each_family
def test_the_pinned_prefix_holds_the_system_prompt(family: Family) -> None:
    _, chat, _ = begin(family)
    assert chat.opening.startswith(family.bos)
    assert system_of(family) in chat.opening
    assert chat.opening.endswith(family.opens_with)
    if not family.has_system:
        with pytest.raises(UnsupportedFeatureError, match="try an empty system_prompt"):
            ChatTemplate(family.lm(tiny_lm()), SYSTEM)


@each_family
def test_the_mark_that_ends_an_answer_is_learned(family: Family) -> None:
    lm, chat, _ = begin(family)
    assert [lm.tokenizer.convert_ids_to_tokens(i) for i in chat.end_token_ids] == [family.end]
    (end,) = chat.end_token_ids
    ids = chat.next_turn_ids("Bye")
    assert ids == lm.encode(chat.next_turn("Bye"), add_special_tokens=False).tolist()
    # An answer that ended by itself is not closed twice.
    assert chat.next_turn_ids("Bye", last_token_id=end) == ids[1:]
    assert chat.next_turn_ids("Bye", last_token_id=ids[-1]) == ids


@each_family
def test_marks_that_a_user_types_are_text(family: Family) -> None:
    lm, chat, _ = begin(family)
    marks = (*family.marks, *(word for word in family.words))
    typed = f"say {''.join(marks)} and {marks[0]}"
    for harmless, ids, text in (
        (chat.first_turn_ids("say"), chat.first_turn_ids(typed), chat.first_turn(typed)),
        (chat.next_turn_ids("say"), chat.next_turn_ids(typed), chat.next_turn(typed)),
    ):
        added = lm.tokenizer.added_tokens_decoder
        assert [i for i in ids if i in added] == [i for i in harmless if i in added]
        assert lm.tokenizer.decode(ids) == text
        assert typed in text
    parts = (ContentPart(marks[0][:2]), ContentPart(marks[0][2:]))
    split = chat.next_turn_ids([Message("user", parts)])
    assert [i for i in split if i in added] == [i for i in harmless if i in added]


WORDS = st.sampled_from(
    ["How", " are", "\n", "you", "?", "  ", "streamingllmplaceholder0x", "é", "\ue000"]
)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.is_stable], ids=lambda family: family.name
)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_text_in_pieces_is_the_whole(family: Family, data: st.DataObject) -> None:
    marks = st.sampled_from([*family.marks, *family.words])
    texts = st.lists(WORDS | marks, max_size=6).map(lambda words: f"Say {''.join(words)}.")
    lm, chat, messages = begin(family)
    pieces = chat.opening
    for turn in range(3):
        text = data.draw(texts)
        pieces += chat.next_turn(text) if turn else chat.first_turn(text)
        messages.append(said("user", text))
        # Thoughts of old answers are dropped by some templates, whoever wrote their marks.
        assert pieces == rendered(lm, messages)
        messages.append(said("assistant", "Fine."))
        pieces += f"{family.lead}Fine."


@pytest.mark.parametrize(
    ("name", "call", "end"),
    [
        ("llama-3.1", '{"name": "add", "parameters": {"a": 1}}', "<|eot_id|>"),
        ("llama-3.2", '{"name": "add", "parameters": {"a": 1}}', "<|eot_id|>"),
        *(
            (name, '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', end)
            for name, end in (
                ("qwen-2.5", "<|im_end|>"),
                ("qwen-3", "<|im_end|>"),
                ("qwen-3-instruct-2507", "<|im_end|>"),
            )
        ),
        (
            "deepseek-v3.1",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>"
            '{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            "<｜end▁of▁sentence｜>",
        ),
        ("mistral-small-3.2", '[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": 1}', "</s>"),
        (
            "gpt-oss",
            ' to=functions.add<|channel|>commentary json<|message|>{"a": 1}',
            "<|call|>",
        ),
    ],
)
def test_tools_are_called_within_a_stream(name: str, call: str, end: str) -> None:
    family = BY_NAME[name]
    # Mistral moves the tools to the last turn of the user, DeepSeek leaves them out.
    tools = [] if family.name.startswith(("mistral", "deepseek")) else [TOOL]
    lm, chat, messages = begin(family, tools=tools)
    if tools:
        assert "Add one." in chat.opening + chat.first_turn("Hi")
    asked = Message("assistant", tool_calls=(CALL,))
    results = [RESULT] if end == "<|eot_id|>" else [RESULT, RESULT]
    pieces = chat.opening + chat.first_turn("Add.") + call + chat.next_turn(results, asked)
    messages += [
        said("user", "Add."),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": CALL.id,
                    "type": "function",
                    "function": {"name": "add", "arguments": {"a": 1}},
                }
            ],
        },
        *[{**said("tool", "42"), "tool_call_id": CALL.id, "name": "add"} for _ in results],
    ]
    assert pieces == rendered(lm, messages, tools=tools or None)
    assert chat.next_turn(results, asked).startswith(end)
    messages.append(said("assistant", "42."))
    pieces += f"{family.lead}42."
    messages.append(said("user", "Thanks"))
    assert pieces + chat.next_turn("Thanks") == rendered(lm, messages, tools=tools or None)


@pytest.mark.parametrize(
    ("name", "role"),
    [("deepseek-v3", "system"), ("qwen-3", "wizard")],
)
def test_a_message_that_is_left_out_is_refused(name: str, role: str) -> None:
    _, chat, _ = begin(BY_NAME[name])
    with pytest.raises(UnsupportedFeatureError, match="leaves out a message of role"):
        chat.next_turn([Message.of_text(role, "Hi")])


@pytest.mark.parametrize("name", ["gemma-2", "gemma-3", "phi-3", "phi-4", "mistral-v1"])
def test_results_without_tools_are_refused_where_a_template_leaves_them_out(name: str) -> None:
    _, chat, _ = begin(BY_NAME[name])
    asked = Message("assistant", tool_calls=(CALL,))
    for messages in ([Message.of_text("user", "Hi"), asked, RESULT], [RESULT]):
        for turn in (chat.first_turn, chat.next_turn):
            with pytest.raises(
                UnsupportedFeatureError, match=r"no place for the results of tool calls.*send tools"
            ):
                turn(messages)


@pytest.mark.parametrize(
    "name", ["deepseek-v3", "deepseek-r1-distill", "deepseek-v3.1", "smollm-3", "gemma-3", "phi-3"]
)
def test_tools_that_a_template_leaves_out_are_described(name: str) -> None:
    _, chat, _ = begin(BY_NAME[name], tools=[TOOL])
    assert chat.tool_format == "prompt"
    before = f"{SYSTEM}\n\n" if BY_NAME[name].has_system else ""
    assert f"{before}# Tools" in chat.opening
    assert json.dumps(TOOL) in chat.opening
    asked = Message("assistant", tool_calls=(CALL,))
    result = "<tool_response>\n42\n</tool_response>\n<tool_response>\n42\n</tool_response>"
    assert result in chat.next_turn([RESULT, RESULT], asked)
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    history = [Message.of_text("user", "Hi"), asked, RESULT]
    assert call in chat.first_turn(history)


@pytest.mark.parametrize("system", ["", SYSTEM])
def test_tools_that_cannot_be_described_are_refused(system: str) -> None:
    lm = BY_NAME["gemma-2"].lm(tiny_lm())
    with pytest.raises(UnsupportedFeatureError, match=r"no place for tools.*leave out tools"):
        ChatTemplate(lm, system, tools=[TOOL])


def test_tools_are_sent_with_each_turn_where_the_template_moves_them() -> None:
    _, chat, _ = begin(BY_NAME["mistral-nemo"], tools=[TOOL])
    assert "Add one." in chat.opening
    assert "Add one." in chat.next_turn("Bye")


@pytest.mark.parametrize("name", ["qwen-3", "llama-3.1", "smollm-3", "gpt-oss"])
def test_a_chat_may_begin_with_a_history(name: str) -> None:
    family = BY_NAME[name]
    lm, chat, messages = begin(family)
    history = [
        Message.of_text("user", "Hi"),
        Message.of_text("assistant", "Hello."),
        Message.of_text("user", "Bye"),
    ]
    messages += [said(message.role, message.text) for message in history]
    assert chat.opening + chat.first_turn(history) == rendered(lm, messages)


def test_variables_reach_the_template() -> None:
    family = BY_NAME["qwen-3"]
    lm, chat, messages = begin(family, variables={"enable_thinking": False})
    messages.append(said("user", "Hi"))
    whole = rendered(lm, messages, enable_thinking=False)
    assert chat.opening + chat.first_turn("Hi") == whole
    assert whole.endswith("<think>\n\n</think>\n\n")
