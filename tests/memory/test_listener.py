"""A listener hears a text without end, and its questions leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from streamingllm import LanguageModel, Stream
from streamingllm.errors import ConfigError
from streamingllm.memory import Listener, Memory

FACT = "The hamster of Ada is called Napoleon."
QUESTION = "What is the hamster called?"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "memory.db") as opened:
        yield opened


def listening(
    lm: LanguageModel, memory: Memory, *, recall_share: float = 0.2, **settings: object
) -> Listener:
    return Listener(
        lm,
        memory,
        "talk",
        system_prompt="Listen.",
        opening="A talk:",
        cache_size=512,
        recall_share=recall_share,
        **settings,
    )


def fill(listener: Listener, count: int) -> None:
    for number in range(count):
        listener.hear(f"Nothing of note happened on day {number}.", speaker="Bob")


def test_a_question_leaves_the_stream_as_it_was(tiny_chat: LanguageModel, memory: Memory) -> None:
    asked, silent = (listening(tiny_chat, memory) for _ in range(2))
    asked.hear(FACT, speaker="Ada")
    silent.hear(FACT, speaker="Ada")
    for number in range(20):
        for one in (asked, silent):
            one.hear(f"Day {number} was long.", speaker="Bob")
        list(asked.ask(QUESTION).answer(3))
    assert asked.stream.num_seen_tokens == silent.stream.num_seen_tokens
    assert torch.equal(asked.stream.next_logits, silent.stream.next_logits)


def test_what_is_visible_is_not_recalled(tiny_chat: LanguageModel, memory: Memory) -> None:
    listener = listening(tiny_chat, memory, recall_share=0.5)
    listener.hear(FACT, speaker="Ada")
    assert listener.first_visible == 0
    assert listener.recall(QUESTION) == []
    fill(listener, 20)
    assert listener.first_visible > 0
    assert FACT in [piece.text for piece in listener.recall(QUESTION)]
    newest = memory.messages("talk", 1)[0]
    assert newest.position >= listener.first_visible
    assert newest.text not in [piece.text for piece in listener.recall(newest.text)]


def test_a_question_reads_what_a_plain_stream_would_read(
    tiny_chat: LanguageModel, memory: Memory
) -> None:
    listener = listening(tiny_chat, memory, recall_share=0.5)
    lines = [(FACT, "Ada"), *((f"Nothing happened on day {n}.", "Bob") for n in range(20))]
    for text, speaker in lines:
        listener.hear(text, speaker=speaker)
    asked = listener.ask(QUESTION)
    assert [piece.text for piece in asked.recalled][:1] == [FACT]
    heard = "".join(f"{speaker}: {text}\n" for text, speaker in lines)
    recalled = "\n".join(f"{piece.speaker}: {piece.text}" for piece in asked.recalled)
    content = (
        f"A talk:\n{heard}\n[From earlier in this conversation, no longer in view:]\n{recalled}\n"
        f"[End of what was recalled.]\n\n{QUESTION}"
    )
    messages = [{"role": "system", "content": "Listen."}, {"role": "user", "content": content}]
    prompt = tiny_chat.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    plain = Stream(tiny_chat, listener.stream.config)
    plain.feed(tiny_chat.encode(str(prompt), add_special_tokens=False), logits="none")
    torch.testing.assert_close(asked.stream.next_logits, plain.next_logits)


def test_recalled_pieces_stay_within_their_share(tiny_chat: LanguageModel, memory: Memory) -> None:
    listener = listening(tiny_chat, memory, recall_share=0.4)
    for number in range(30):
        listener.hear(f"The hamster ate seed number {number}.", speaker="Ada")
    with_it, without = (listener.ask("Which seed?", recalls=told).stream for told in (True, False))
    assert 0 < with_it.num_seen_tokens - without.num_seen_tokens <= 0.4 * 512


def test_documents_are_searched_beside_what_is_heard(
    tiny_chat: LanguageModel, memory: Memory
) -> None:
    memory.append("rules", "document", "A refund needs the order number.")
    listener = listening(tiny_chat, memory, documents=["rules"], recall_share=0.5)
    (found,) = listener.recall("How do I get a refund?")
    assert found.text == "A refund needs the order number."


def test_control_tokens_that_are_heard_are_text(tiny_chat: LanguageModel, memory: Memory) -> None:
    listener = listening(tiny_chat, memory)
    mark = next(iter(tiny_chat.tokenizer.added_tokens_decoder.values())).content
    before = listener.stream.num_seen_tokens
    listener.hear(mark)
    assert listener.stream.num_seen_tokens - before > 2


def test_the_likelihood_of_an_answer_is_that_of_its_tokens_one_by_one(
    tiny_chat: LanguageModel, memory: Memory
) -> None:
    listener = listening(tiny_chat, memory)
    listener.hear(FACT)
    answer = "Napoleon."
    one_by_one, expected = listener.ask(QUESTION).stream, []
    for token in tiny_chat.encode(answer, add_special_tokens=False):
        expected.append(-F.log_softmax(one_by_one.next_logits, dim=-1)[token])
        one_by_one.feed(token[None])
    found = listener.ask(QUESTION).nats_per_token(answer)
    assert found == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_a_share_out_of_range_is_refused(tiny_chat: LanguageModel, memory: Memory) -> None:
    with pytest.raises(ConfigError, match=r"recall_share=0\.9"):
        listening(tiny_chat, memory, recall_share=0.9)
