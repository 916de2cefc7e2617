"""Write a Llama of 7B random weights in Q4_K_M, load it and decode, compared with llama.cpp.

Run: `python -m benchmarks.synthetic_7b --llama-python PYTHON
--json benchmarks/results/synthetic-7b.json`, where PYTHON has llama-cpp-python.
The file takes 4.1 GB in a temporary folder and is removed afterwards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import gguf
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.gguf_files import measure_rounds
from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record

Type = gguf.GGMLQuantizationType
Bytes = NDArray[np.uint8]
SPAN = 256  # weights of a block
WIDTH, INNER, LAYERS, HEADS, WORDS, CONTEXT = 4096, 11008, 32, 32, 32000, 4096
_BLOCK_BYTES = {Type.Q4_K: 144, Type.Q6_K: 210}
_SPECIAL = ("<unk>", "<s>", "</s>")


def tensors(layers: int) -> Iterator[tuple[str, int, int, Type]]:
    """Yield name, rows, columns and type of each matrix, as llama.cpp's Q4_K_M mixes them."""
    yield "token_embd.weight", WORDS, WIDTH, Type.Q4_K
    for layer in range(layers):
        # The first and last eighth of the layers, and every third between, have six bits.
        eighth = layers // 8
        better = layer < eighth or layer >= layers - eighth or (layer - eighth) % 3 == 2
        mixed = Type.Q6_K if better else Type.Q4_K
        for name, rows, columns, kind in (
            ("attn_q", WIDTH, WIDTH, Type.Q4_K),
            ("attn_k", WIDTH, WIDTH, Type.Q4_K),
            ("attn_v", WIDTH, WIDTH, mixed),
            ("attn_output", WIDTH, WIDTH, Type.Q4_K),
            ("ffn_gate", INNER, WIDTH, Type.Q4_K),
            ("ffn_up", INNER, WIDTH, Type.Q4_K),
            ("ffn_down", WIDTH, INNER, mixed),
        ):
            yield f"blk.{layer}.{name}.weight", rows, columns, kind
    yield "output.weight", WORDS, WIDTH, Type.Q6_K


def random_blocks(rows: int, columns: int, kind: Type, generator: np.random.Generator) -> Bytes:
    """Return random blocks of weights with mean 0 and a deviation of about 1 / sqrt(columns)."""
    size = _BLOCK_BYTES[kind]
    blocks = np.frombuffer(generator.bytes(rows * columns // SPAN * size), np.uint8)
    blocks = blocks.reshape(-1, size).copy()
    deviation = columns**-0.5
    if kind is Type.Q4_K:  # scale * number * code - minimum * number, numbers of six bits
        scale = deviation / (32 * 4.6)
        blocks[:, :4] = np.array([scale, scale * 7.5], np.float16).view(np.uint8)
    else:  # scale * signed byte * (code - 32)
        scale = deviation / (74 * 18.5)
        blocks[:, 208:] = np.array([scale], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def write_llama(path: Path, layers: int, seed: int) -> None:
    """Write the file, one tensor after the other."""
    generator, writer = np.random.default_rng(seed), gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(WORDS)
    _add_tokenizer(writer)
    norms = [f"blk.{i}.{name}.weight" for i in range(layers) for name in ("attn_norm", "ffn_norm")]
    norms.append("output_norm.weight")
    matrices = list(tensors(layers))
    for name, rows, columns, kind in matrices:
        row_bytes = columns // SPAN * _BLOCK_BYTES[kind]
        shape = (rows, row_bytes)
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), rows * row_bytes, kind)
    for name in norms:
        writer.add_tensor_info(name, (WIDTH,), np.dtype(np.float32), 4 * WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, rows, columns, kind in shown(matrices, "tensors"):
        writer.write_tensor_data(random_blocks(rows, columns, kind, generator))
    for _ in norms:
        writer.write_tensor_data(np.ones(WIDTH, np.float32))
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Add a vocabulary of bytes and of words that no text has."""
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    words = [f"word{i}" for i in range(WORDS - len(_SPECIAL) - len(bytes_))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*_SPECIAL, *bytes_, *words])
    writer.add_token_scores([0.0] * (len(_SPECIAL) + 256) + [-float(i) for i in range(len(words))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def main(
    layers: Annotated[int, typer.Option(help="Layers; 32 make 6.7 billion weights.")] = LAYERS,
    steps: Annotated[int, typer.Option(help="Timed decode steps.")] = 16,
    threads: Annotated[int, typer.Option(help="Worker threads.")] = 2,
    held: Annotated[int, typer.Option(help="Tokens that each of 16 streams holds.")] = 32,
    rounds: Annotated[int, typer.Option(help="Turns of each contestant.")] = 1,
    llama_python: Annotated[
        Path | None, typer.Option(help="Interpreter with llama-cpp-python; without it only ours.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Write, measure and remove the file.

    Example: python -m benchmarks.synthetic_7b --layers 2
    """
    request = {"steps": steps, "threads": threads, "held": held}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama-7b-Q4_K_M.gguf"
        write_llama(path, layers, seed)
        result = measure_rounds(path, request, rounds, 0, llama_python)
    write_json(json, {"file": result, "layers": layers, **request, **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
