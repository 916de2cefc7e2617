"""Listen to a text without end, and answer questions about any part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError, UnsupportedFeatureError
from streamingllm.memory.memory import Memory
from streamingllm.memory.passages import passages, recalled_block
from streamingllm.memory.records import Recalled
from streamingllm.models import LanguageModel
from streamingllm.sessions.control_text import placeholder_for
from streamingllm.stream import Stream
from streamingllm.stream.sampling import GREEDY, SamplingParams
from streamingllm.stream.text import generate_text

_END = 1 << 62
_MIN_SINK_TOKENS = 4


@dataclass(frozen=True)
class Asked:
    """Hold a stream that has read a question.

    Args:
        lm: that answers.
        stream: a fork; whatever it generates leaves the listener as it is.
        recalled: pieces that were put before the question, in their order.
    """

    lm: LanguageModel
    stream: Stream
    recalled: tuple[Recalled, ...]

    def answer(self, max_new_tokens: int = 256, sampling: SamplingParams = GREEDY) -> Iterator[str]:
        """Generate the answer, piece by piece."""
        return iter(generate_text(self.stream, self.lm, max_new_tokens, sampling=sampling))

    def nats_per_token(self, answer: str) -> float:
        """Return the negative log-likelihood of an answer, which the stream reads."""
        ids = self.lm.encode(answer, add_special_tokens=False, parse_control_tokens=False)
        first = self.stream.next_logits
        predicted = torch.cat((first[None], self.stream.feed(ids)[:-1]))
        return float(F.cross_entropy(predicted.float(), ids))


class Listener:
    """Hear a text without end, and answer questions on the side.

    All that is heard stands in one message of a user, whose beginning is pinned together with the
    system prompt. What leaves the window is found in a memory. A question goes to a fork of the
    stream, with the recalled pieces before it, so that the stream never sees either.

    Args:
        lm: a model with a chat template.
        memory: that keeps what is heard; it stays open.
        session_id: of what is heard.
        system_prompt: pinned.
        opening: first line of the user's message, pinned as well.
        documents: further sessions of the memory that questions are searched in. Each session has
            an equal share of the budget.
        cache_size: tokens that are cached, the pinned ones included.
        recall_share: bound on the recalled pieces and their marks, as a share of `cache_size`.

    Raises:
        ConfigError: the pinned text leaves no room in the cache.
        UnsupportedFeatureError: the model has no chat template, or one that alters messages.
    """

    def __init__(
        self,
        lm: LanguageModel,
        memory: Memory,
        session_id: str,
        *,
        system_prompt: str = "",
        opening: str = "",
        documents: Sequence[str] = (),
        cache_size: int = 1024,
        recall_share: float = 0.2,
    ) -> None:
        if not 0 <= recall_share <= 0.5:
            raise ConfigError(f"recall_share={recall_share!r} is out of range; choose 0 to 0.5")
        self.lm, self.memory, self.session_id = lm, memory, session_id
        self._searched = (session_id, *documents)
        self._budget_tokens = int(recall_share * cache_size)
        before, self._ending = _frame(lm, system_prompt)
        pinned = lm.encode(before, add_special_tokens=False)
        first = lm.encode(f"{opening}\n", add_special_tokens=False, parse_control_tokens=False)
        num_pinned = max(_MIN_SINK_TOKENS, len(pinned) + (len(first) if opening else 0))
        self.stream = Stream(lm, StreamConfig.with_cache_size(cache_size, num_pinned))
        self.stream.feed(pinned, logits="none")
        if opening:
            self.stream.feed(first, logits="none")

    def hear(self, text: str, *, role: str = "user", speaker: str = "", **meta: Any) -> str:
        """Feed a text as a line of its own and keep it; return its id.

        Args:
            text: with no control tokens; those in it are read as text.
            role: see `Memory.append`.
            speaker: written before the text, if there is one.
            meta: see `Memory.append`.
        """
        position = self.stream.num_seen_tokens
        message_id = self.memory.append(
            self.session_id, role, text, speaker=speaker, position=position, **meta
        )
        line = f"{speaker}: {text}\n" if speaker else f"{text}\n"
        self.stream.feed(self._ids(line), logits="none")
        return message_id

    @property
    def first_visible(self) -> int:
        """Stream position from which on all is visible."""
        num_forgotten = self.stream.num_seen_tokens - self.stream.num_cached_tokens
        return self.stream.config.num_sink_tokens + num_forgotten if num_forgotten else 0

    def recall(self, question: str) -> list[Recalled]:
        """Return what left the window and a question is about, in its order."""
        budget = self._budget_tokens // len(self._searched)
        found = []
        for session_id in self._searched:
            visible = range(self.first_visible, _END) if session_id == self.session_id else ()
            best = passages(self.memory.search(session_id, question, budget, visible))
            while best and len(self._ids(_block(best))) > budget:
                best.pop()
            found += sorted(best, key=lambda piece: piece.number)
        return found

    def ask(self, question: str, *, recalls: bool = True) -> Asked:
        """Ask on a fork of the stream.

        Args:
            question: of a user.
            recalls: False for the window alone.
        """
        found = self.recall(question) if recalls else []
        told = f"\n{_block(found)}\n{question}" if found else f"\n{question}"
        stream = self.stream.fork()
        stream.feed(self._ids(told), logits="none")
        stream.feed(self.lm.encode(self._ending, add_special_tokens=False), logits="none")
        return Asked(self.lm, stream, tuple(found))

    def _ids(self, text: str) -> Tensor:
        return self.lm.encode(
            text, add_special_tokens=False, parse_control_tokens=False, is_continuation=True
        )


def _block(found: Sequence[Recalled]) -> str:
    return recalled_block(
        f"{piece.speaker}: {piece.text.strip()}" if piece.speaker else piece.text.strip()
        for piece in found
    )


def _frame(lm: LanguageModel, system_prompt: str) -> tuple[str, str]:
    """Return what a template writes before a user's message, and after it up to the answer."""
    if lm.tokenizer.chat_template is None:
        raise UnsupportedFeatureError(f"{lm.name} has no chat template; choose a model with one")
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    word = placeholder_for(system)
    text = lm.tokenizer.apply_chat_template(
        [*system, {"role": "user", "content": word}], tokenize=False, add_generation_prompt=True
    )
    before, found, after = str(text).partition(word)
    if not found:
        raise UnsupportedFeatureError(
            f"the chat template of {lm.name} alters messages; choose another model"
        )
    return before, after
