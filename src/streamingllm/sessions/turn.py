"""One turn of a session: the request, and the events of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from streamingllm.finish_reason import FinishReason
from streamingllm.sessions.recall import Recall
from streamingllm.sessions.transcript import Message, ToolCall
from streamingllm.sessions.turn_attempt import TurnAttempt
from streamingllm.stream.next_token import TokenLogprobs
from streamingllm.stream.sampling import SamplingParams

IdentityKind = Literal["session", "chat", "point", "transcript", "new"]
ToolMode = Literal["auto", "none", "required"]


@dataclass(frozen=True)
class Identity:
    """Name the session that a request continues.

    Args:
        kind: "session": the session `id`, which is created if it is missing; "chat": the chat `id`
            of a client that sends its whole history, branches included; "point": the place in
            session `id` after the message `after`; "transcript": the session whose messages the
            history repeats; "new": none.
        id: of the session or chat.
        after: id of a message, for "point".
    """

    kind: IdentityKind = "transcript"
    id: str = ""
    after: str = ""


@dataclass(frozen=True)
class TurnRequest:
    """Describe a turn: what was said, to whom, and how the answer is generated.

    Args:
        owner: whose session it is; nobody else can see it.
        messages: as they were sent, without the system prompt: a history, or only what is new.
        params: sampling parameters.
        identity: of the session.
        system_prompt: to pin; None leaves the session's own, or the operator's.
        tools: JSON schemas of functions, as a chat template takes them; None leaves the session's.
        tool_mode: whether the answer may, must not or must call a tool.
        tool_name: of the one tool that must be called.
        parallel_tool_calls: whether an answer may call more than one tool.
        template_variables: further variables of the chat template.
        truncation: "auto" evicts; "disabled" refuses what does not fit and ends before it would.
        eviction: "token" or "turn"; None leaves the session's own, or the server's.
        is_stored: whether the turn is written to disk.
        is_side_task: whether the turn leaves its session as it is (titles, tags, follow-ups).
        deadline: seconds from now after which the answer ends.
        metadata: of a session that is created.
        attempt: at a turn that may be repeated elsewhere; None where turns are not.
    """

    owner: str
    messages: tuple[Message, ...]
    params: SamplingParams
    identity: Identity = Identity()
    system_prompt: str | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    tool_mode: ToolMode = "auto"
    tool_name: str | None = None
    parallel_tool_calls: bool = True
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    truncation: Literal["auto", "disabled"] = "auto"
    eviction: Literal["token", "turn"] | None = None
    is_stored: bool = True
    is_side_task: bool = False
    deadline: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attempt: TurnAttempt | None = None


@dataclass(frozen=True)
class SessionView:
    """Count what the model still sees of a session.

    Args:
        session_id: of the session.
        num_seen_tokens: tokens so far.
        num_visible_tokens: those that are cached.
        num_pinned_tokens: length of the pinned prefix.
        first_visible_message: number of the first message visible in full after the pinned system
            prompt, from 0; None if none is.
        first_visible_message_id: its id.
        num_messages: of the transcript, the system prompt included.
        notices: texts that the operator lets every client show: a disclosure, a reminder.
        recall: what a memory has put back for the turn; None without a memory.
    """

    session_id: str
    num_seen_tokens: int
    num_visible_tokens: int
    num_pinned_tokens: int
    first_visible_message: int | None
    first_visible_message_id: str | None
    num_messages: int
    notices: tuple[str, ...] = ()
    recall: Recall | None = None

    @property
    def num_forgotten_tokens(self) -> int:
        """Tokens whose keys and values are evicted."""
        return self.num_seen_tokens - self.num_visible_tokens


@dataclass(frozen=True)
class TurnUsage:
    """Count the tokens of a turn.

    Args:
        num_cached_tokens: tokens of earlier turns that were still visible.
        num_fed_tokens: tokens of the request that were fed.
        num_generated_tokens: tokens of all samples.
        num_reasoning_tokens: those of them that are reasoning.
        num_evicted_tokens: tokens of the session that are evicted after the turn.
    """

    num_cached_tokens: int
    num_fed_tokens: int
    num_generated_tokens: int
    num_reasoning_tokens: int
    num_evicted_tokens: int

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that the answer could build on."""
        return self.num_cached_tokens + self.num_fed_tokens


@dataclass(frozen=True)
class TurnStarted:
    """Report that the request was accepted and its slot is there; nothing was refused.

    Args:
        view: of the session after what was said, before the answer.
        answer_id: id of the message that the answer will be.
        num_prompt_tokens: tokens that the answer builds on.
        num_cached_tokens: those of them that did not have to be fed.
    """

    view: SessionView
    answer_id: str
    num_prompt_tokens: int
    num_cached_tokens: int


@dataclass(frozen=True)
class TextDelta:
    """Add text to a sample's answer.

    Args:
        sample: number of the sample.
        text: that goes on.
        logprobs: of the tokens since the last event, if they were asked for.
        is_reasoning: whether the text is reasoning, which is no part of the answer.
    """

    sample: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    is_reasoning: bool = False


@dataclass(frozen=True)
class ToolCallDelta:
    """Add to a tool call of a sample's answer.

    Args:
        sample: number of the sample.
        number: of the call within the answer.
        id: of the call.
        name: of the function.
        arguments: JSON text that goes on.
        is_first: whether the call begins.
    """

    sample: int
    number: int
    id: str
    name: str
    arguments: str
    is_first: bool = False


@dataclass(frozen=True)
class SampleEnded:
    """Report the end of a sample.

    Args:
        sample: number of the sample.
        reason: why it ended.
        message: the answer, as it was parsed.
        reasoning: its reasoning, which is no part of the message.
        stop_string: that ended it.
        num_tokens: generated.
        error: why it failed.
    """

    sample: int
    reason: FinishReason
    message: Message
    reasoning: str = ""
    stop_string: str | None = None
    num_tokens: int = 0
    error: Exception | None = None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Calls that the answer asks for."""
        return self.message.tool_calls


@dataclass(frozen=True)
class TurnEnded:
    """Report that the turn is durable; the last event.

    Args:
        view: of the session after the answer.
        usage: tokens of the turn.
    """

    view: SessionView
    usage: TurnUsage


TurnEvent = TurnStarted | TextDelta | ToolCallDelta | SampleEnded | TurnEnded
