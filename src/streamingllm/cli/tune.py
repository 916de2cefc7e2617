"""Find the best sinks for a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from streamingllm.cache_folder import cache_folder
from streamingllm.cli.files import check_writable
from streamingllm.cli.loading import load_shown, use_threads
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    ThreadsOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.perplexity import check_max_tokens
from streamingllm.cli.run_record import package_version, run_record
from streamingllm.evaluation.texts import open_documents
from streamingllm.models import DEFAULT_MODEL


def tune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A catalog name, a hub id, a folder or a file.")
    ] = DEFAULT_MODEL,
    text: Annotated[
        list[str],
        typer.Option(help="A UTF-8 file, `pydoc`, or `hub:DATASET`; may be given several times."),
    ] = ["pydoc"],  # noqa: B006 - typer copies it
    cache_size: Annotated[int, typer.Option(help="Entries of every cache.")] = 1024,
    max_tokens: Annotated[int, typer.Option(help="Read no more tokens of a text.")] = 16_384,
    quantize: QuantizeOption = "auto",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Keep what is done in FILE, and go on from there."),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="For `load_model(..., tuned=True)` on this machine.")
    ] = False,
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Measure a model's sinks, and recommend how many first tokens to keep.

    Example: `streamingllm tune smollm2-135m-instruct --quantize int4 --cache-size 256`
    """
    check_max_tokens(max_tokens)
    check_writable("resume", resume)
    documents = [list(open_documents(source)) for source in text]
    use_threads(threads)
    lm = load_shown(model, dtype=dtype, device=device, cache_dir=cache_dir, quantize=quantize)
    from streamingllm.cli.eval.running import print_evaluation, shown_parts
    from streamingllm.evaluation.records import Records
    from streamingllm.evaluation.tasks.perplexity import TokenizedText
    from streamingllm.evaluation.texts import read_tokens
    from streamingllm.evaluation.tuning import tune as tune_model
    from streamingllm.models.tuned_config import save_tuned_config

    settings = {
        "model": lm.name,
        "source": lm.source,
        "quantize": lm.quantization,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": str(lm.model.device),
        "texts": text,
        "cache_size": cache_size,
        "max_tokens": max_tokens,
    }
    records = Records(resume, {**settings, "version": package_version("streamingllm")})
    texts = [
        TokenizedText(source.rpartition("/")[2], read_tokens(lm, found, max_tokens))
        for source, found in zip(text, documents, strict=True)
    ]
    on_part = shown_parts(Console(file=sys.stderr, highlight=False))
    found = tune_model(lm, texts, cache_size, seed=seed, records=records, on_part=on_part)
    console = human_console(json)
    print_evaluation(console, found.evaluation, seed)
    rates = ", ".join(f"{rate:.0%}" for rate in found.rates)
    console.print(f"heads with more than 30 % of their attention on tokens 0 to 7: {rates}")
    console.print(f"recommended: {found.recommended.label}", soft_wrap=True)
    if save:
        facts = {"above_best": found.margin.to_json(), "config": settings}
        path = save_tuned_config(
            lm.source, cache_folder(cache_dir), found.recommended.config, facts
        )
        console.print(f"saved: {path}", soft_wrap=True)
    if json is not None:
        write_json(json, {**found.report(seed), "config": settings, **run_record(seed)})
