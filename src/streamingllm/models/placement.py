"""Data types and devices by name."""

from __future__ import annotations

import torch

from streamingllm.checks import check_choice

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_HALF_PRECISION = (torch.bfloat16, torch.float16)


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """Return the data type of that name, or None for "auto".

    Raises:
        ConfigError: there is no such name.
    """
    name = str(dtype).removeprefix("torch.")
    if name == "auto":
        return None
    check_choice("dtype", name, ("auto", *DTYPES))
    return DTYPES[name]


def dtype_in_memory(
    wanted: torch.dtype | None, stored: torch.dtype, device: torch.device
) -> torch.dtype:
    """Return the data type of a model's weights in memory.

    Args:
        wanted: what the user asks for; None for a choice.
        stored: of the checkpoint.
        device: half precision is slower than float32 on most CPUs, and less exact.
    """
    if wanted is not None:
        return wanted
    return torch.float32 if device.type == "cpu" and stored in _HALF_PRECISION else stored


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device of that name; "auto" is the first accelerator there is, else the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    names = _available_devices()
    name = str(device)
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if kind in names))
    check_choice("device", name, ("auto", *names))
    return torch.device(name)


def _available_devices() -> list[str]:
    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names
