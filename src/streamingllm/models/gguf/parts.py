"""GGUF models that are split into several files, `NAME-00001-of-00003.gguf` and so on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.header import GgufHeader, read_gguf_header

_PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_COUNT, _NUMBER, _NUM_TENSORS = "split.count", "split.no", "split.tensors.count"


def part_paths(path: Path) -> tuple[Path, ...]:
    """Return all files of the model that a file belongs to, in order; the file alone if whole.

    Args:
        path: any file of the model; the others are in its folder.

    Raises:
        ModelLoadError: a file is missing.
    """
    found = _PART_NAME.fullmatch(path.name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]):
        return (path,)
    count = int(found["count"])
    names = [f"{found['stem']}-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]
    paths = tuple(path.parent / name for name in names)
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ModelLoadError(
            f"{path}: is one of {count} files of a model; put {missing[0]}{others} into "
            f"{path.parent}"
        )
    return paths


def read_gguf_model(path: Path) -> GgufHeader:
    """Read the headers of all files of a model as one.

    Args:
        path: the file, or any one of its parts.

    Returns:
        The metadata of the first part and the tensors of all.

    Raises:
        ModelLoadError: a part is missing, damaged, or belongs to another model.
    """
    paths = part_paths(path)
    headers = [read_gguf_header(part) for part in paths]
    if len(paths) == 1:
        if headers[0].num_parts > 1:
            count = headers[0].num_parts
            raise ModelLoadError(
                f"{path}: is one of {count} files of a model; give it back the name "
                f"NAME-{headers[0].integer(_NUMBER, 0) + 1:05}-of-{count:05}.gguf"
            )
        return headers[0]
    for index, header in enumerate(headers):
        _check_part(header, index, len(headers))
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelLoadError(
            f"{path}: its {len(headers)} files hold a tensor twice; fetch them again"
        )
    wanted = headers[0].integer(_NUM_TENSORS, len(tensors))
    if wanted != len(tensors):
        raise ModelLoadError(
            f"{path}: its {len(headers)} files hold {len(tensors)} tensors of {wanted}; fetch "
            "them again"
        )
    return replace(headers[0], tensors=tensors)


def _check_part(header: GgufHeader, index: int, count: int) -> None:
    stated = header.integer(_NUMBER, -1), header.integer(_COUNT, 0)
    if stated != (index, count):
        raise ModelLoadError(
            f"{header.path}: states that it is part {stated[0] + 1} of {stated[1]}; fetch it again"
        )
