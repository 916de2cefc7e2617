"""Options of commands that write text."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from streamingllm.checks import check_integer

if TYPE_CHECKING:
    import torch

TemperatureOption = Annotated[
    float, typer.Option(help="0 takes the most probable token; higher values vary more.")
]
TopPOption = Annotated[
    float, typer.Option("--top-p", help="Sample among tokens that together have this probability.")
]
TopKOption = Annotated[
    int, typer.Option("--top-k", help="Sample among this number of probable tokens; 0 is all.")
]
MinPOption = Annotated[
    float,
    typer.Option("--min-p", help="Leave out tokens below this share of the greatest probability."),
]
RepetitionPenaltyOption = Annotated[
    float, typer.Option(help="Divide the scores of recent tokens by this.")
]
SeedOption = Annotated[
    int | None, typer.Option(help="Makes sampling repeatable; random if not given.")
]


def chosen_seed(seed: int | None) -> int:
    """Return the seed of a run, drawn if none was given, so that it can be reported.

    Raises:
        ConfigError: it is negative or too large.
    """
    if seed is None:
        return secrets.randbits(32)
    check_integer("seed", seed, 0, 2**63 - 1)
    return seed


def seeded_generator(seed: int, device: torch.device) -> torch.Generator:
    """Return the source of randomness of a run, on the device where tokens are chosen."""
    import torch

    return torch.Generator(device=device).manual_seed(seed)


def check_max_new_tokens(max_new_tokens: int) -> None:
    """Refuse a negative number before a model is loaded.

    Raises:
        ConfigError: `max_new_tokens` is less than 0.
    """
    check_integer("max_new_tokens", max_new_tokens, 0)
