"""Write on from a prompt."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streamingllm.cli.interrupt import EXIT_CODE, on_interrupt
from streamingllm.cli.loading import load_shown
from streamingllm.cli.options import (
    CacheDirOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeCacheOption,
    QuantizeOption,
    SinksOption,
    WindowOption,
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
from streamingllm.cli.strategies import DEFAULT_SINK_TOKENS, DEFAULT_WINDOW_SIZE
from streamingllm.config import StreamConfig
from streamingllm.errors import InputError
from streamingllm.finish_reason import FinishReason
from streamingllm.models import DEFAULT_MODEL
from streamingllm.text_files import decode_text, read_text_file

if TYPE_CHECKING:
    from torch import Tensor

    from streamingllm.models import LanguageModel
    from streamingllm.stream import Stream
    from streamingllm.stream.text import TextPieces

_STANDARD_INPUT = "-"
_CHOICE = "choose a UTF-8 file"
# Compiling takes as long as some thousands of tokens; a short text only uses what is there already.
_WORTH_COMPILING = 5000


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The text to go on from.")] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Read the prompt from FILE; `-` is standard input."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is what a user says to a chat model.")
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option(help="Write no more tokens than this; 100000 is fine.")
    ] = 256,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text; may be given several times."),
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-end-tokens", help="Go on when the model would end.")
    ] = False,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = 0,
    min_p: MinPOption = 0.0,
    repetition_penalty: RepetitionPenaltyOption = 1.0,
    seed: SeedOption = None,
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    quantize_cache: QuantizeCacheOption = "none",
    compile: CompileOption = True,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Write on from a prompt of any length, for as long as you like.

    Example: `streamingllm generate "The sea is" --max-new-tokens 2000 --temperature 0.8`
    """
    config = StreamConfig(
        num_sink_tokens=num_sink_tokens, window_size=window_size, quantize_cache=quantize_cache
    )
    seed = chosen_seed(seed)
    check_max_new_tokens(max_new_tokens)
    text = read_prompt(prompt, prompt_file)
    from streamingllm.stream import Stream
    from streamingllm.stream.sampling import SamplingParams
    from streamingllm.stream.text import StopStrings, generate_text

    sampling = SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty)
    StopStrings(stop or ())

    lm = load_shown(model, dtype=dtype, device=device, cache_dir=cache_dir, quantize=quantize)
    ids, end_token_ids = _as_said(lm, text) if chat else (lm.encode(text), frozenset[int]())
    stream = Stream(lm.model, config)
    stream.feed(ids, logits="none")
    if compile:
        stream.compile(cached_only=max_new_tokens < _WORTH_COMPILING)
    pieces = generate_text(
        stream,
        lm,
        max_new_tokens,
        sampling=sampling,
        stop_strings=stop or (),
        stop_token_ids=() if ignore_eos else end_token_ids,
        ignore_eos=ignore_eos,
        generator=seeded_generator(seed, lm.model.device),
    )
    started = time.perf_counter()
    written = _write_shown(pieces, human_console(json))
    result = {
        "text": written,
        "finish_reason": pieces.finish_reason,
        **_counts(stream, len(ids), time.perf_counter() - started),
    }
    _print_counts(result)
    if json is not None:
        settings = {
            "model": model,
            "source": lm.source,
            "chat": chat,
            "max_new_tokens": max_new_tokens,
            "stop": stop or [],
            "ignore_eos": ignore_eos,
            **asdict(sampling),
            "num_sink_tokens": num_sink_tokens,
            "window_size": window_size,
            "quantize": lm.quantization,
            "weights": lm.weights,
            "quantize_cache": quantize_cache,
            "compiled": stream.is_compiled,
            "dtype": str(lm.model.dtype).removeprefix("torch."),
            "device": str(lm.model.device),
        }
        write_json(json, {**result, "config": settings, **run_record(seed)})
    if pieces.finish_reason is FinishReason.CANCELLED:
        raise typer.Exit(EXIT_CODE)


def read_prompt(prompt: str | None, prompt_file: str | None) -> str:
    """Return the prompt, from wherever it is given.

    Raises:
        InputError: it is given twice or not at all, is empty, or cannot be read.
    """
    if (prompt is None) == (prompt_file is None):
        raise InputError(
            "prompt is missing or given twice; give PROMPT or --prompt-file FILE (`-` is standard "
            "input)"
        )
    text = prompt if prompt_file is None else _file_text(prompt_file)
    if not text:
        raise InputError("prompt is empty; give at least one character")
    return text


def _file_text(name: str) -> str:
    if name == _STANDARD_INPUT:
        return decode_text("prompt_file", name, sys.stdin.buffer.read(), _CHOICE)
    return read_text_file("prompt_file", name, _CHOICE)


def _as_said(lm: LanguageModel, text: str) -> tuple[Tensor, frozenset[int]]:
    """Return the ids of a first turn, int64, [seq], and the marks that end its answer."""
    import torch

    from streamingllm.sessions import ChatTemplate

    template = ChatTemplate(lm)
    ids = [*template.opening_ids(), *template.first_turn_ids(text)]
    return torch.tensor(ids, device=lm.model.device), template.end_token_ids


def _write_shown(pieces: TextPieces, console: Console) -> str:
    """Write pieces as they come, until the end or Ctrl-C, and return them together."""
    written = []
    with on_interrupt(pieces.interrupt):
        for piece in pieces:
            written.append(piece)
            console.file.write(piece)
            console.file.flush()
    if console.is_terminal:
        console.file.write("\n")
    return "".join(written)


def _counts(stream: Stream, prompt_tokens: int, seconds: float) -> dict[str, Any]:
    tokens = stream.num_seen_tokens - prompt_tokens
    return {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "prompt_tokens": prompt_tokens,
        "seen_tokens": stream.num_seen_tokens,
        "cached_tokens": stream.num_cached_tokens,
        "evicted_tokens": stream.num_seen_tokens - stream.num_cached_tokens,
        "cache_bytes": stream.nbytes,
    }


def _print_counts(result: dict[str, Any]) -> None:
    console = Console(file=sys.stderr, markup=False, highlight=False, style="dim")
    if console.is_terminal:
        console.print(
            f"{result['tokens']:,} tokens, {result['tokens_per_second']:,.1f} tokens/s; "
            f"{result['seen_tokens']:,} seen, {result['cached_tokens']:,} visible, "
            f"{result['evicted_tokens']:,} forgotten",
            soft_wrap=True,
        )
