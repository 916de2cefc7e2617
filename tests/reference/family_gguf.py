"""GGUF files of small models without meaning, of every architecture that is read by name.

The facts are stated by hand, in the names that llama.cpp's converter writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.reference.gguf_case import COMMON_FACTS, COMMON_FIELDS
from tests.reference.gguf_gemma_cases import GEMMA_CASES
from tests.reference.gguf_hybrid_cases import HYBRID_CASES
from tests.reference.gguf_norm_cases import NORM_CASES
from tests.reference.gguf_rms_cases import RMS_CASES
from tests.reference.gguf_rope_cases import ROPE_CASES
from tests.reference.gguf_states import gguf_tensors

GGUF_CASES = {**RMS_CASES, **GEMMA_CASES, **NORM_CASES, **ROPE_CASES, **HYBRID_CASES}


def architecture_of(case: str) -> str:
    """Return the architecture that a case belongs to."""
    known = set(gguf.MODEL_ARCH_NAMES.values())
    return case if case in known else case.rsplit("-", 1)[0]


def write_family_gguf(
    path: Path,
    case: str,
    *,
    tied: bool = False,
    split_tensors: int = 0,
    width: int | None = None,
    has_tokens: bool = False,
) -> PreTrainedModel:
    """Write the file of a case with random weights and return the model that it is of.

    Args:
        path: of the file.
        case: a name of `GGUF_CASES`.
        tied: whether the output layer is the embedding.
        split_tensors: tensors of each file; 0 for one file.
        width: of hidden states and feed-forward layers, instead of the usual ones.
        has_tokens: whether the file has a vocabulary, of tokens without meaning.
    """
    stated, architecture = GGUF_CASES[case], architecture_of(case)
    sizes = {} if width is None else {"hidden_size": width, "intermediate_size": width}
    lengths = {} if width is None else {"embedding_length": width, "feed_forward_length": width}
    tied = tied if stated.tied is None else stated.tied
    fields = {**COMMON_FIELDS, **sizes, **stated.fields, "tie_word_embeddings": tied}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(stated.model_type, **fields)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.data.normal_(centre, 0.25)
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias", "layer_scalar")):
                buffer.normal_()
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split_tensors)
    writer.add_name("small")
    for role in ("bos", "eos", "pad"):
        getattr(writer, f"add_{role}_token_id")(COMMON_FIELDS[f"{role}_token_id"])
    if has_tokens:
        _add_tokens(writer, COMMON_FIELDS["vocab_size"])
    for key, value in {**COMMON_FACTS, **lengths, **stated.facts}.items():
        _add(writer, f"{architecture}.{key}", value)
    for name, values in gguf_tensors(model, architecture, case).items():
        writer.add_tensor(name, values.numpy())
    for name, row in stated.tensors.items():
        writer.add_tensor(name, np.array(row, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_tokens(writer: gguf.GGUFWriter, count: int) -> None:
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"\u2581w{i}" for i in range(3, count))])
    writer.add_token_types([gguf.TokenType.UNKNOWN, control, control] + [normal] * (count - 3))
    writer.add_token_scores([0.0] * count)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
