"""Listen to a meeting, answer questions about any part of it, and write its minutes.

With `--data` that has QMSum's test meetings, one of them is heard and its questions are asked when
it ends. Without, a short meeting made here. `--follow 1` reads "Speaker: text" from standard input
instead; a line that begins with "?" is a question.

Example: python examples/applications/meeting.py --meeting 3 --turns 400
Source: Zhong et al., QMSum, NAACL 2021.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from figures import mean, options, table, token_f1, words

from streamingllm import load_model
from streamingllm.memory import Listener, Memory

WORDS_PER_MINUTE = 150  # of people who talk


@dataclass
class Question:
    """A question, its answer, and the numbers of the turns that it is about."""

    text: str
    answer: str
    evidence: range


@dataclass
class Meeting:
    """Turns as (speaker, text), questions, and topics for the minutes."""

    turns: list[tuple[str, str]]
    questions: list[Question]
    topics: list[str]


def read_meeting(file: Path, number: int, num_turns: int) -> Meeting:
    """Return the beginning of a meeting of QMSum, with the questions about it."""
    record = json.loads(file.read_text().splitlines()[number])
    turns = [(turn["speaker"], turn["content"]) for turn in record["meeting_transcripts"]]
    questions = []
    for asked in record["specific_query_list"]:
        first, last = (int(at) for at in asked["relevant_text_span"][0])
        if last < num_turns:
            evidence = range(first, last + 1)
            questions.append(Question(asked["query"], asked["answer"], evidence))
    ends = {one["topic"]: int(one["relevant_text_span"][0][1]) for one in record["topic_list"]}
    topics = [topic for topic, last in ends.items() if last < num_turns]
    return Meeting(turns[:num_turns], questions, topics)


def made_meeting(num_turns: int) -> Meeting:
    """Return a meeting in which each speaker decides one thing, with questions about it."""
    subjects = ("remote control", "battery", "colour", "budget", "launch", "packaging", "slogan")
    choices = ("rubber", "solar", "yellow", "twelve euros", "in March", "of paper", "Feel it")
    turns, questions = [], []
    for number in range(num_turns):
        subject, choice = (some[number % len(some)] for some in (subjects, choices))
        text = f"I suppose that we can talk about item {number} of the list for a while."
        if number < len(subjects):
            text = f"We decided about the {subject}: it will be {choice}, and that is final."
            asked = f"What did we decide about the {subject}?"
            questions.append(Question(asked, f"It will be {choice}.", range(number, number + 1)))
        turns.append((f"Speaker {number % 3 + 1}", text))
    return Meeting(turns, questions, list(subjects[:2]))


def follow(listener: Listener) -> None:
    """Hear lines of standard input as they come, and answer questions among them."""
    for number, line in enumerate(map(str.strip, sys.stdin)):
        if line.startswith("?"):
            print(*listener.ask(line[1:].strip()).answer(80), sep="", flush=True)
        elif line:
            speaker, colon, text = line.partition(":")
            told, who = (text.strip(), speaker) if colon else (line, "")
            listener.hear(told, speaker=who, message_id=f"line {number}")


def figures(listener: Listener, meeting: Meeting, *, recalls: bool) -> dict[str, float]:
    """Ask all questions, and compare the answers with the reference."""
    first = listener.first_visible
    seen = {
        int(piece.message_id.split()[1])
        for piece in listener.memory.messages(listener.session_id)
        if piece.position >= first
    }
    found = defaultdict(list)
    for question in meeting.questions:
        asked = listener.ask(question.text, recalls=recalls)
        told = {int(piece.message_id.split()[1]) for piece in asked.recalled} | seen
        evidence = {n for n in question.evidence if len(words(meeting.turns[n][1])) > 3}
        found["questions with evidence in view"].append(float(bool(told & evidence)))
        said = "".join(asked.answer(40))
        found["token F1 of answers"].append(token_f1(said, question.answer))
        nats = listener.ask(question.text, recalls=recalls).nats_per_token(question.answer)
        found["nats per token of the reference answer"].append(nats)
    return {name: mean(values) for name, values in found.items()}


def main() -> None:
    """Hear a meeting, print its figures and its minutes."""
    sizes = {"turns": 40, "cache_size": 512, "recall_percent": 40}
    chosen = options("Listen to a meeting.", meeting=0, follow=0, minutes=1, **sizes)
    lm = load_model(chosen.model, quantize=chosen.quantize)
    file = chosen.data / "qmsum-test.jsonl"
    is_there = file.is_file()
    read = read_meeting(file, chosen.meeting, chosen.turns) if is_there else made_meeting(40)
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory.db") as memory:
        size, share = chosen.cache_size, chosen.recall_percent / 100
        listener = Listener(
            lm, memory, "meeting", opening="A meeting:", cache_size=size, recall_share=share
        )
        if chosen.follow:
            follow(listener)
            return
        start = time.perf_counter()
        for number, (speaker, text) in enumerate(read.turns):
            listener.hear(text, speaker=speaker, message_id=f"turn {number}")
        minutes = sum(len(words(text)) for _, text in read.turns) / WORDS_PER_MINUTE
        speed = 60 * minutes / (time.perf_counter() - start)
        stream = listener.stream
        print(f"{len(read.turns)} turns, {minutes:.0f} minutes, heard at {speed:.0f} x their pace")
        print(f"{stream.num_seen_tokens} tokens heard, {stream.num_cached_tokens} visible")
        arms = {"window": False, "with memory": True}
        rows = {arm: figures(listener, read, recalls=told) for arm, told in arms.items()}
        print(table(f"{len(read.questions)} questions", rows))
        for topic in read.topics if chosen.minutes else ():
            asked = listener.ask(f"Summarize in one sentence the discussion about {topic}.")
            print(f"- {topic}: {''.join(asked.answer(40)).strip()}")


if __name__ == "__main__":
    main()
