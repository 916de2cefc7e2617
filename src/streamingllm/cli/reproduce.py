"""Make the paper's tables and figures again, and write a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streamingllm.checks import check_choice
from streamingllm.cli.files import write_whole
from streamingllm.cli.loading import load_shown, use_threads
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeOption,
    ThreadsOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import package_version, run_record
from streamingllm.errors import ConfigError
from streamingllm.evaluation.texts import open_documents
from streamingllm.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from streamingllm.evaluation.reproduce.exhibit import Exhibit

EXHIBIT_NAMES = (
    *(f"table-{number}" for number in (1, 2, 3, 5, 6, 7, 8, 10)),
    *(f"figure-{number}" for number in (3, 5, 9, 10)),
)


def reproduce(
    exhibits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXHIBIT]...", help=f"Among {', '.join(EXHIBIT_NAMES)}; all if none is given."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: ten minutes on two idle cores.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="For the report, its plots and its records.")] = Path(
        "reproduction"
    ),
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="STREAMINGLLM_DATA",
            metavar="FOLDER",
            help="Folder with arc-easy-test.jsonl, arc-challenge-test.jsonl, qmsum-test.jsonl.",
        ),
    ] = None,
    text: Annotated[
        list[str],
        typer.Option(help="A UTF-8 file, `pydoc`, or `hub:DATASET`; may be given several times."),
    ] = ["pydoc"],  # noqa: B006 - typer copies it
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    seed: Annotated[int, typer.Option(help="Of generated texts and of intervals.")] = 0,
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Make tables and figures of the paper again, next to the paper's numbers.

    Run it again with the same folder to go on where it was stopped.

    Example: `streamingllm reproduce table-2 figure-9 --quick --text book.txt`
    """
    names = list(dict.fromkeys(exhibits or EXHIBIT_NAMES))
    for name in names:
        check_choice("exhibit", name, EXHIBIT_NAMES)
    documents = [list(open_documents(source)) for source in text]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"folder={str(folder)!r} cannot be made ({error.strerror}); choose another one"
        ) from error
    use_threads(threads)
    lm = load_shown(model, dtype=dtype, device=device, cache_dir=cache_dir, quantize=quantize)
    from streamingllm.cli.eval.running import shown_parts
    from streamingllm.evaluation.reproduce.context import FULL, QUICK, Context
    from streamingllm.evaluation.reproduce.registry import EXHIBITS
    from streamingllm.evaluation.tasks.perplexity import TokenizedText
    from streamingllm.evaluation.texts import read_tokens

    settings = {
        "model": lm.name,
        "source": lm.source,
        "quantize": lm.quantization,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": str(lm.model.device),
        "version": package_version("streamingllm"),
    }
    console = Console(file=sys.stderr, highlight=False)
    shown = shown_parts(console)
    context = Context(
        lm,
        [
            TokenizedText(source.rpartition("/")[2], read_tokens(lm, found))
            for source, found in zip(text, documents, strict=True)
        ],
        QUICK if quick else FULL,
        data=data,
        folder=folder,
        fingerprint=settings,
        seed=seed,
        on_part=shown,
    )
    made: dict[str, tuple[str, Exhibit | str]] = {}
    started = time.perf_counter()
    for name in names:
        plan = EXHIBITS[name]
        if context.has_data(plan.data):
            console.print(f"{name}: begun after {time.perf_counter() - started:,.0f} s")
            made[name] = (plan.title, plan.make(context))
        else:
            made[name] = (plan.title, f"--data has no {', '.join(plan.data)}")
        report = _report(made, settings, quick, text, seed, time.perf_counter() - started)
        _write_files(folder, made, report)
    human_console(json).print(f"The report is {folder / 'report.html'}.", soft_wrap=True)
    if json is not None:
        write_json(json, report)


def _report(
    made: Mapping[str, tuple[str, Exhibit | str]],
    settings: Mapping[str, Any],
    quick: bool,
    texts: Sequence[str],
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    """Return what programs read of the exhibits made so far; the seconds are of this run."""
    from streamingllm.evaluation.reproduce.report import to_json

    names = [text.rpartition("/")[2] for text in texts]
    config = {**settings, "quick": quick, "texts": names}
    return {
        "exhibits": to_json(made),
        "seconds": seconds,
        "config": config,
        **run_record(seed),
    }


def _write_files(
    folder: Path, made: Mapping[str, tuple[str, Exhibit | str]], report: Mapping[str, Any]
) -> None:
    """Write the report in three formats, and its plots."""
    from streamingllm.evaluation.reproduce.report import blocks_of, to_html, to_markdown

    config, hardware, versions = report["config"], report["hardware"], report["versions"]
    setting = (
        f"{config['model']} ({config['source']}, weights {config['quantize']}, "
        f"{config['dtype']}), {hardware['cores']} cores of {hardware['cpu']}, accelerator "
        f"{hardware['accelerator'] or 'none'}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}, commit {report['git_commit']}, "
        f"{'quick' if config['quick'] else 'full'} sizes. Brackets hold 95 % bootstrap intervals."
    )
    blocks = blocks_of(made, "Efficient Streaming Language Models, made again", setting)
    write_whole("folder", folder / "report.md", to_markdown(blocks).encode())
    write_whole("folder", folder / "report.html", to_html(blocks).encode())
    write_json(str(folder / "report.json"), report)
    for kind, content in blocks:
        if kind == "image":
            write_whole("folder", folder / content[0], content[1])
