"""Talk with a model, for as long as you like."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streamingllm.cli.interrupt import on_interrupt
from streamingllm.cli.loading import load_shown
from streamingllm.cli.options import (
    CacheDirOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.cli.sampling import (
    MinPOption,
    RepetitionPenaltyOption,
    SeedOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    check_max_new_tokens,
    chosen_seed,
    seeded_generator,
)
from streamingllm.errors import StreamingLLMError
from streamingllm.models import DEFAULT_MODEL
from streamingllm.sessions import DEFAULT_SYSTEM_PROMPT
from streamingllm.text_files import without_byte_order_mark

if TYPE_CHECKING:
    from streamingllm.cli.chat_recall import ChatRecall
    from streamingllm.sessions import Conversation

_PROMPT = "> "


def chat(
    model: ModelOption = DEFAULT_MODEL,
    system: Annotated[
        str,
        typer.Option(metavar="TEXT", help="System prompt: never forgotten; '' for none."),
    ] = DEFAULT_SYSTEM_PROMPT,
    cache_size: Annotated[
        int, typer.Option(help="Tokens that the model sees, the system prompt included.")
    ] = 1024,
    max_rewind_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens that /rewind takes back at once; each costs as much memory as a visible "
            "one. Beyond them the text before is read again."
        ),
    ] = 512,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of one answer at most.")] = 512,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory",
            help="Find what left the window when a message asks about it, and say what was found.",
        ),
    ] = False,
    temperature: TemperatureOption = 0.2,
    top_p: TopPOption = 0.9,
    top_k: TopKOption = 0,
    min_p: MinPOption = 0.0,
    repetition_penalty: RepetitionPenaltyOption = 1.1,
    seed: SeedOption = None,
    quantize: QuantizeOption = "auto",
    compile: CompileOption = True,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Talk with a chat model without end; it sees the system prompt and the last tokens.

    What has left the window is forgotten, and a line after each answer says what that is. `/help`
    lists what you can do besides talking.

    Example: `streamingllm chat --system "You are a pirate." --cache-size 2048`
    """
    seed = chosen_seed(seed)
    check_max_new_tokens(max_new_tokens)
    from streamingllm.sessions import Conversation
    from streamingllm.stream.sampling import SamplingParams

    sampling = SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty)
    lm = load_shown(model, dtype=dtype, device=device, cache_dir=cache_dir, quantize=quantize)
    conversation = Conversation(
        lm, system_prompt=system, cache_size=cache_size, max_rewind_tokens=max_rewind_tokens
    )
    if compile and system:
        conversation.stream.compile(cached_only=True)
    settings = {
        "model": model,
        "source": lm.source,
        "system": system,
        "cache_size": cache_size,
        "max_rewind_tokens": max_rewind_tokens,
        "max_new_tokens": max_new_tokens,
        "memory": memory,
        **asdict(sampling),
        "quantize": lm.quantization,
        "weights": lm.weights,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": str(lm.model.device),
    }
    writing = {
        "max_new_tokens": max_new_tokens,
        "sampling": sampling,
        "generator": seeded_generator(seed, lm.model.device),
    }
    with _recall(memory) as recall:
        last = _talk(conversation, human_console(json), writing, recall)
        recalled = {} if recall is None else {"recalled": recall.report}
    if json is not None:
        report = {**_report(last), **recalled}
        write_json(json, {**report, "config": settings, **run_record(seed)})


@contextlib.contextmanager
def _recall(memory: bool) -> Iterator[ChatRecall | None]:
    if not memory:
        yield None
        return
    from streamingllm.cli.chat_recall import ChatRecall

    with contextlib.closing(ChatRecall()) as recall:
        yield recall


def _talk(
    conversation: Conversation,
    console: Console,
    writing: dict[str, Any],
    recall: ChatRecall | None,
) -> Conversation:
    """Answer what is typed until the user leaves; return the branch that was left."""
    from streamingllm.cli.chat_commands import ChatCommands, is_command
    from streamingllm.sessions.reasoning import window_warning

    def remark(text: str) -> None:
        console.print(text, style="dim", soft_wrap=True)

    commands = ChatCommands(conversation, remark)
    config = conversation.stream.config
    if warning := window_warning(conversation.lm, config.num_sink_tokens + config.window_size):
        remark(warning)
    remark("/help lists the commands")
    for text in _typed(console):
        try:
            if is_command(text):
                remark(commands.run(text.strip()))
            else:
                branch = commands.conversation
                context = "" if recall is None else recall.before(branch, text)
                _answer(branch, text, console, {**writing, "context": context})
                remark(_status(branch))
                if recall is not None:
                    remark(recall.describe(branch))
        except StreamingLLMError as error:
            console.print(f"error: {error}", soft_wrap=True)
        except KeyboardInterrupt:
            remark("\ninterrupted")
        if commands.is_over:
            break
    return commands.conversation


def _typed(console: Console) -> Iterator[str]:
    """Yield what the user types or pastes, without blank lines, until the end of the input.

    Several lines that are pasted together come together. A byte order mark at the beginning, which
    some editors write into a file, is no text.
    """
    _edit_lines()
    is_first = True
    while True:
        try:
            with contextlib.redirect_stdout(console.file):
                text = input(_PROMPT)
        except KeyboardInterrupt:
            console.print("\n(/quit or Ctrl-D leaves)")
            continue
        except EOFError:
            console.print()
            return
        # Bytes that are no text arrive as lone surrogates, which no tokenizer takes.
        text = text.encode(errors="surrogateescape").decode(errors="replace")
        if is_first:
            text, is_first = without_byte_order_mark(text), False
        text = text.rstrip()
        if text:
            yield text


def _edit_lines() -> None:
    """Let `input` edit lines, and take a paste of several lines as one text."""
    with contextlib.suppress(ImportError):
        import readline

        # CPython turns this off; libedit has neither the variable nor the same syntax.
        if "libedit" not in (readline.__doc__ or ""):
            readline.parse_and_bind("set enable-bracketed-paste on")


def _answer(
    conversation: Conversation, text: str, console: Console, writing: dict[str, Any]
) -> None:
    with on_interrupt(conversation.interrupt):
        for piece in conversation.say(text, **writing):
            console.file.write(piece)
            console.file.flush()
    console.file.write("\n")


def _status(conversation: Conversation) -> str:
    endings = {"length": "the answer was cut at max_new_tokens; ", "cancelled": "interrupted; "}
    ending = endings.get(conversation.finish_reason or "", "")
    return f"[{ending}{conversation.visibility.describe()}]"


def _report(conversation: Conversation) -> dict[str, Any]:
    seen = conversation.visibility
    return {
        "turns": [{"user": turn.user, "assistant": turn.assistant} for turn in conversation.turns],
        "seen_tokens": seen.num_seen_tokens,
        "cached_tokens": seen.num_visible_tokens,
        "evicted_tokens": seen.num_forgotten_tokens,
        "forgotten_turns": seen.num_forgotten_turns,
        "cache_bytes": conversation.stream.nbytes,
    }
