"""Clients that talk until the server dies, and know afterwards which answers they were given."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2

from tests.sessions.managers import SYSTEM

MAX_TOKENS = 16


@dataclass
class Conversation:
    """Hold what a client knows of one conversation.

    Args:
        name: begins every question, and names the session of clients that name it.
        is_named: whether a header names the session; else the whole history is sent each time.
        is_streamed: whether the answer comes as a stream.
        turns: questions and the answers that arrived whole.
        asked: question whose answer has not arrived.
        session_id: as the server told it.
        has_moved: whether a later turn was answered in another session.
    """

    name: str
    is_named: bool
    is_streamed: bool
    turns: list[tuple[str, str]] = field(default_factory=list)
    asked: str | None = None
    session_id: str | None = None
    has_moved: bool = False

    async def ask(self, http: httpx2.AsyncClient, question: str | None = None) -> None:
        """Ask the next question; it counts as answered once the last byte is there."""
        self.asked = question or f"{self.name} q{len(self.turns)}?"
        history = [] if self.is_named else [text for turn in self.turns for text in turn]
        said = [*history, self.asked]
        roles = ("user", "assistant")
        body = {
            "messages": [
                {"role": "system", "content": SYSTEM},
                *({"role": roles[i % 2], "content": text} for i, text in enumerate(said)),
            ],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "stream": self.is_streamed,
        }
        headers = {"x-session-id": self.name} if self.is_named else {}
        path = "/v1/chat/completions"
        async with http.stream("POST", path, json=body, headers=headers) as response:
            self._note_session(response.headers.get("x-session-id"))
            text = (await response.aread()).decode()
        assert response.status_code == 200, text
        self.turns.append((self.asked, self._answer(text)))
        self.asked = None

    def _note_session(self, session_id: str | None) -> None:
        if self.turns and session_id != self.session_id:
            self.has_moved = True
        self.session_id = session_id

    def _answer(self, text: str) -> str:
        if not self.is_streamed:
            content = json.loads(text)["choices"][0]["message"]["content"]
            assert isinstance(content, str)
            return content
        events = [line.removeprefix("data: ") for line in text.split("\n") if line[:5] == "data:"]
        if events[-1] != "[DONE]":
            raise httpx2.ReadError("the stream was cut")
        choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    async def check(self, http: httpx2.AsyncClient) -> None:
        """Check that every answered turn is there, and at most the one that was being answered."""
        assert not self.has_moved, f"{self.name}: its session was not found again"
        if self.session_id is None and self.is_named:
            self.session_id = self.name
        if self.session_id is None:
            return
        response = await http.get(f"/v1/sessions/{self.session_id}")
        if response.status_code == 404 and not self.turns:
            return
        assert response.status_code == 200, (self.name, response.text)
        said = [message["text"] for message in response.json()["messages"]][1:]
        known = [text for turn in self.turns for text in turn]
        assert said[: len(known)] == known, f"{self.name}: an answered turn is lost"
        rest = said[len(known) :]
        if rest:  # it was durable, and the server died before the last byte was on its way
            assert rest[0] == self.asked, (self.name, rest)
            assert len(rest) == 2, (self.name, rest)
            self.turns.append((rest[0], rest[1]))
        self.asked = None


class Talker:
    """Hold one conversation after another, each of some turns.

    Args:
        number: of the client; every other one names its sessions, every other pair streams.
        num_turns: of a conversation.
    """

    def __init__(self, number: int, num_turns: int = 40) -> None:
        self._number = number
        self._num_turns = num_turns
        self.conversations: list[Conversation] = []
        self.conversations.append(self._new())

    def _new(self) -> Conversation:
        name = f"c{self._number}-{len(self.conversations)}"
        return Conversation(name, self._number % 2 == 0, self._number // 2 % 2 == 0)

    async def talk(self, http: httpx2.AsyncClient) -> None:
        """Ask until the server is gone."""
        try:
            while True:
                if len(self.conversations[-1].turns) >= self._num_turns:
                    self.conversations.append(self._new())
                await self.conversations[-1].ask(http)
        except httpx2.TransportError:
            return


def kill_moment(rng: random.Random, longest: float) -> float:
    """Seconds until the next kill: many are early, some late."""
    return longest * rng.random() ** 2


async def answers_alone(
    http: httpx2.AsyncClient, told: Conversation, name: str
) -> Sequence[tuple[str, str]]:
    """What a server that was never killed answers to the same questions."""
    alone = Conversation(name, told.is_named, told.is_streamed)
    for question, _ in told.turns:
        await alone.ask(http, question)
    return alone.turns
