"""A GGUF file with a value of every kind."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write_sample(path: Path, num_tokens: int) -> None:
    """Write a file with one value of every kind."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Grüße")
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{kind}")(f"a.{kind}", 7)
    for kind in ("float32", "float64"):
        getattr(writer, f"add_{kind}")(f"a.{kind}", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.words", ["one", "two"])
    writer.add_token_list([f"token {number}" for number in range(num_tokens)])
    writer.add_token_scores([0.5] * num_tokens)
    blocks = gguf.quantize(np.ones((3, 64), np.float32), gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("blocks", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("numbers", np.ones(5, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
