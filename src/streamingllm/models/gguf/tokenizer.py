"""The tokenizer that a GGUF file's metadata describe.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, Tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.header import GgufHeader
from streamingllm.models.gguf.merges import merges_from_scores
from streamingllm.models.gguf.splits import WORD_SPLITS, WordSplit

_PREFIX = "tokenizer.ggml."
_CONTROL, _USER_DEFINED, _UNKNOWN = 3, 4, 2
_BYTE_LEVEL, _SENTENCE_PIECE, _GEMMA4 = "gpt2", "llama", "gemma4"
_SPACE = "\u2581"  # stands for a space in SentencePiece's vocabularies
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


@dataclass(frozen=True)
class Vocabulary:
    """Hold the tokens of a file.

    Args:
        header: of the file.
        tokens: their texts, by id.
        types: their kinds by id, empty if the file does not say.
    """

    header: GgufHeader
    tokens: list[str]
    types: list[int]

    def ids(self) -> dict[str, int]:
        """Return the id of each text; of a text that occurs twice the first."""
        ids: dict[str, int] = {}
        for token_id, token in enumerate(self.tokens):
            ids.setdefault(token, token_id)
        return ids

    def of_type(self, *types: int) -> list[str]:
        """Return the tokens of some types, in the order of their ids."""
        pairs = zip(self.tokens, self.types, strict=True) if self.types else ()
        return [token for token, kind in pairs if kind in types]

    def role(self, name: str) -> str | None:
        """Return the token that a key of the file names, such as `eos_token_id`."""
        key = _PREFIX + name
        if key not in self.header.metadata:
            return None
        token_id = self.header.integer(key, 0)
        if not 0 <= token_id < len(self.tokens):
            raise ModelLoadError(
                f"{self.header.path}: {key}={token_id} is outside the vocabulary of "
                f"{len(self.tokens):,}; fetch the file again"
            )
        return self.tokens[token_id]


def read_gguf_tokenizer(header: GgufHeader) -> PreTrainedTokenizerBase:
    """Build the tokenizer of a file.

    Raises:
        ModelLoadError: the file has no tokenizer, or one of a kind that is not known.
    """
    vocabulary = _vocabulary(header)
    kind = header.text(_PREFIX + "model")
    if kind == _BYTE_LEVEL:
        split = _word_split(header)
        tokenizer, adds_bos = _byte_level(vocabulary, split), split.adds_bos
    elif kind == _SENTENCE_PIECE:
        tokenizer, adds_bos = _sentence_piece(vocabulary, _scored_merges(vocabulary)), True
    elif kind == _GEMMA4:
        tokenizer, adds_bos = _sentence_piece(vocabulary, _stated_merges(vocabulary)), True
    else:
        raise ModelLoadError(
            f"{header.path}: {_PREFIX}model={kind!r} is not known; choose a file with "
            f"{_BYTE_LEVEL}, {_SENTENCE_PIECE} or {_GEMMA4}"
        )
    _add_tokens(tokenizer, vocabulary)
    _add_ends(tokenizer, vocabulary, adds_bos)
    context = header.integer(f"{header.architecture}.context_length", 0)
    roles = {role: vocabulary.role(name) for role, name in _ROLES.items()}
    fields: dict[str, Any] = {role: token for role, token in roles.items() if token is not None}
    if context:
        fields["model_max_length"] = context
    # transformers copies what it is given, which takes a second; this tokenizer is nobody else's.
    vars(tokenizer)["__deepcopy__"] = lambda memo: tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=header.text("tokenizer.chat_template") or None,
        clean_up_tokenization_spaces=False,
        **fields,
    )


def _vocabulary(header: GgufHeader) -> Vocabulary:
    tokens = header.array(_PREFIX + "tokens")
    if not tokens:
        raise ModelLoadError(
            f"{header.path}: has no {_PREFIX}tokens; choose a file with a tokenizer"
        )
    types = header.array(_PREFIX + "token_type") or []
    if not all(isinstance(token, str) for token in tokens):
        raise ModelLoadError(f"{header.path}: {_PREFIX}tokens are no texts; fetch the file again")
    if types and len(types) != len(tokens):
        raise ModelLoadError(
            f"{header.path}: has {len(types):,} token types for {len(tokens):,} tokens; fetch "
            "the file again"
        )
    return Vocabulary(header, tokens, types)


def _word_split(header: GgufHeader) -> WordSplit:
    name = header.text(_PREFIX + "pre", "default")
    if name not in WORD_SPLITS:
        raise ModelLoadError(
            f"{header.path}: {_PREFIX}pre={name!r} is not known; choose a file with one of "
            f"{', '.join(sorted(WORD_SPLITS))}"
        )
    return WORD_SPLITS[name]


def _byte_level(vocabulary: Vocabulary, split: WordSplit) -> Tokenizer:
    """Return a tokenizer whose texts are UTF-8, each byte spelled as a printable character."""
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary.ids(),
            merges=_stated_merges(vocabulary),
            ignore_merges=split.whole_words,
            fuse_unk=False,
        )
    )
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, spell])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _stated_merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return the pairs of neighbours that the file lists, those of known tokens."""
    ids, merges = vocabulary.ids(), []
    for merge in vocabulary.header.array(_PREFIX + "merges") or []:
        left, _, right = str(merge).partition(" ")
        if left in ids and right in ids and left + right in ids:
            merges.append((left, right))
    return merges


def _scored_merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return the pairs of neighbours whose joint token the file gives a score, best first."""
    scores = vocabulary.header.array(_PREFIX + "scores") or []
    if len(scores) != len(vocabulary.tokens):
        raise ModelLoadError(
            f"{vocabulary.header.path}: has {len(scores):,} scores for "
            f"{len(vocabulary.tokens):,} tokens; fetch the file again"
        )
    return merges_from_scores(vocabulary.ids(), scores)


def _sentence_piece(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> Tokenizer:
    """Return a tokenizer of letters and spaces, with bytes for letters that it lacks."""
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary.ids(),
            merges=merges,
            unk_token=vocabulary.role("unknown_token_id"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[Any] = [normalizers.Replace(" ", _SPACE)]
    ends: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.header.flag(_PREFIX + "add_space_prefix", True):
        steps.insert(0, normalizers.Prepend(_SPACE))
        ends.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(ends)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Let tokens that stand for themselves be found in a text before it is cut."""
    controls = vocabulary.of_type(_CONTROL, _UNKNOWN)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in controls if t])
    others = vocabulary.of_type(_USER_DEFINED)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in others if t])


def _add_ends(tokenizer: Tokenizer, vocabulary: Vocabulary, adds_bos: bool) -> None:
    """Put the tokens around a text that the file asks for."""
    header = vocabulary.header
    bos = vocabulary.role("bos_token_id")
    eos = vocabulary.role("eos_token_id")
    before = bos if header.flag(_PREFIX + "add_bos_token", adds_bos) else None
    after = eos if header.flag(_PREFIX + "add_eos_token", False) else None
    ends = [token for token in dict.fromkeys((before, after)) if token is not None]
    if not ends:
        return
    ids = vocabulary.ids()
    steps: list[Any] = [before, "$A", after]
    pair: list[Any] = [before, "$A", after, f"{before}:1" if before else None, "$B:1"]
    pair.append(f"{after}:1" if after else None)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[step for step in steps if step is not None],
        pair=[step for step in pair if step is not None],
        special_tokens=[(token, ids[token]) for token in ends],
    )
