"""A checkpoint on the disk, and reading it with transformers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from streamingllm.errors import ModelLoadError
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.gguf.config import gguf_config, is_read_here
from streamingllm.models.gguf.header import GgufHeader
from streamingllm.models.gguf.parts import part_paths, read_gguf_model
from streamingllm.models.progress import Progress
from streamingllm.models.quiet import quiet_libraries

if TYPE_CHECKING:  # takes seconds to import, which files are not read need not wait for
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Checkpoint:
    """Say which files on the disk make up a model.

    Args:
        folder: a folder in the layout of transformers, or the one that holds `gguf_file`.
        gguf_file: name of the GGUF file in `folder`, if that is where the weights are.
        source: where the files came from, for people to read.
    """

    folder: Path
    gguf_file: str | None
    source: str

    @property
    def path(self) -> Path:
        """Path that a user would name: of the GGUF file or the folder."""
        return self.folder if self.gguf_file is None else self.folder / self.gguf_file

    @property
    def fingerprint(self) -> str:
        """Name these files as they are now: paths, sizes and times of change."""
        files = sorted(self.folder.iterdir()) if self.gguf_file is None else part_paths(self.path)
        facts = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]

    @property
    def has_shards(self) -> bool:
        """Tell whether the weights are in safetensors files."""
        return self.gguf_file is None and any(self.folder.glob("*.safetensors"))

    def read_config(self) -> PreTrainedConfig:
        """Read the configuration of a folder.

        Raises:
            ModelLoadError: the architecture is unknown.
        """
        from transformers import AutoConfig, PreTrainedConfig

        with failing_as_load_error(f"{self.path}: cannot be read as a decoder"), quiet_libraries():
            config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
        assert isinstance(config, PreTrainedConfig)
        return config

    @property
    def _location(self) -> dict[str, Any]:
        location = {"pretrained_model_name_or_path": self.folder, "local_files_only": True}
        return location if self.gguf_file is None else {**location, "gguf_file": self.gguf_file}

    @cached_property
    def _header(self) -> GgufHeader:
        """The header of the GGUF file and of its other parts, read once."""
        return read_gguf_model(self.path)

    def read_model(self, dtype: torch.dtype | None) -> PreTrainedModel:
        """Read the weights onto the CPU.

        Args:
            dtype: of the weights in memory; None for the one they are stored in (float32 for
                GGUF, whose blocks are dequantised exactly).

        Raises:
            ModelLoadError: the architecture is unknown, or weights are missing or damaged.
        """
        from transformers import AutoModelForCausalLM, PreTrainedModel

        from streamingllm.integration.trained_sinks import sink_kind
        from streamingllm.models.decoder_class import check_sinks_used, decoder_class

        if self.gguf_file is not None:
            dtype = dtype or torch.float32
            header = self._header
            if is_read_here(header):
                return self._read_gguf(header, dtype)
        with failing_as_load_error(f"{self.path}: cannot be read as a decoder"), quiet_libraries():
            loader: Any = AutoModelForCausalLM
            if self.gguf_file is None and sink_kind(config := self.read_config()) is not None:
                loader = decoder_class(config)
            loaded: Any = loader.from_pretrained(
                **self._location, dtype=dtype or "auto", output_loading_info=True
            )
            model, report = loaded
            check_sinks_used(report["unexpected_keys"], self.folder)
            missing = sorted(report["missing_keys"])
            if missing:
                # transformers would go on with random numbers in their place.
                raise ModelLoadError(
                    f"{self.path}: {len(missing)} weights of {type(model).__name__} are missing, "
                    f"such as {missing[0]}; fetch the files again"
                )
            quantizer = getattr(model, "hf_quantizer", None)
            if self.gguf_file is not None and quantizer is not None:
                # The weights are plain tensors by now; the mark would forbid saving them.
                quantizer.remove_quantization_config(model)
        assert isinstance(model, PreTrainedModel)
        return model

    def _read_gguf(self, header: GgufHeader, dtype: torch.dtype) -> PreTrainedModel:
        from streamingllm.models.gguf.weights import read_gguf_weights

        with failing_as_load_error(f"{self.path}: cannot be read as a decoder"), quiet_libraries():
            return read_gguf_weights(header, gguf_config(header), dtype)

    @property
    def has_blocks(self) -> bool:
        """Tell whether it is a GGUF file with weights that are computed with in their own bits."""
        from streamingllm.kernels.blocks import FORMATS

        if self.gguf_file is None:
            return False
        header = self._header
        is_known = is_read_here(header)
        return is_known and any(t.ggml_type.number in FORMATS for t in header.tensors)

    def read_native(self, dtype: torch.dtype, progress: Progress) -> PreTrainedModel:
        """Read a GGUF file onto the CPU, with weights in their own bits.

        Args:
            dtype: of all that is dequantised, and of activations.
            progress: told about the stage "read".

        Raises:
            ModelLoadError: the architecture is unknown, or weights are missing or damaged.
        """
        from streamingllm.models.gguf.native_weights import read_native_weights

        with failing_as_load_error(f"{self.path}: cannot be read as a decoder"), quiet_libraries():
            header = self._header
            return read_native_weights(header, gguf_config(header), dtype, progress)

    def read_tokenizer(self, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
        """Read the tokenizer.

        Args:
            config: the model's; for GGUF it says which tokens begin, end and pad a text.

        Raises:
            ModelLoadError: there is none, or it is damaged.
        """
        from transformers import AutoTokenizer, PreTrainedTokenizerBase

        with failing_as_load_error(f"{self.path}: has no usable tokenizer"), quiet_libraries():
            if self.gguf_file is not None:
                header = self._header
                if is_read_here(header):
                    from streamingllm.models.gguf.tokenizer import read_gguf_tokenizer

                    return read_gguf_tokenizer(header)
            tokenizer = AutoTokenizer.from_pretrained(**self._location)
            if self.gguf_file is not None:
                _name_special_tokens(tokenizer, config)
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        return tokenizer


def _name_special_tokens(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    # transformers 5.17 reads these from GGUF rightly for the model, wrongly for the tokenizer.
    for role in ("bos", "eos", "pad"):
        token_id = getattr(config, f"{role}_token_id", None)
        if isinstance(token_id, int):
            setattr(tokenizer, f"{role}_token", tokenizer.convert_ids_to_tokens(token_id))
