"""A memory in plain Python: every window is scored, by the formula of BM25 as it is printed."""

from __future__ import annotations

import math

from streamingllm.memory import MemorySettings

DAY = "thursday 1 january 1970"  # of time 0


class PlainMemory:
    """Hold messages of one session, whose words are what white space separates."""

    def __init__(self, settings: MemorySettings) -> None:
        self.settings = settings
        self.messages: list[tuple[str, set[str], int] | None] = []  # id, words, how many

    def append(self, message_id: str, role: str, text: str) -> None:
        words = f"{DAY} {role} {text}".split()
        self.messages.append((message_id, set(words), len(words)))

    def forget(self, message_id: str) -> None:
        self.messages = [
            None if message and message[0] == message_id else message for message in self.messages
        ]

    def scores(self, query: str) -> dict[str, float]:
        """Return the score of each message that has one above zero."""
        s, there = self.settings, [message for message in self.messages if message]
        if not there:
            return {}
        mean = sum(length for *_, length in there) / len(there)
        asked = {
            word: len([1 for _, words, _ in there if word in words])
            for word in query.split()
            if any(word in words for _, words, _ in there)
        }

        def bm25(counts: dict[str, int], length: float) -> float:
            total = 0.0
            for word, n in asked.items():
                if not counts[word]:
                    continue
                idf = math.log((len(there) - n + 0.5) / (n + 0.5) + 1)
                norm = s.k1 * (1 - s.b + s.b * length / mean)
                total += idf * counts[word] * (s.k1 + 1) / (counts[word] + norm)
            return total

        best: dict[str, float] = {}
        start = 0
        while True:
            window = [m for m in self.messages[start : start + s.window_pieces] if m]
            counts = {word: sum(word in words for _, words, _ in window) for word in asked}
            score = bm25(counts, sum(length for *_, length in window) / s.window_pieces)
            for message_id, words, length in window:
                alone = bm25({word: int(word in words) for word in asked}, length)
                both = score + s.own_weight * alone
                best[message_id] = max(best.get(message_id, 0.0), both)
            if start + s.window_pieces >= len(self.messages):
                break
            start += s.stride_pieces
        return {message_id: score for message_id, score in best.items() if score > 0}
