"""Cut a text into words for a byte-level vocabulary, by the name that a GGUF file gives.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp; the patterns are
those of the models' own tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = f"(?i:{_CONTRACTIONS})"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"


def _words(digits: str, letters: str = r"\p{L}", end: str = r"[\r\n]*") -> str:
    """Return the pattern of Llama 3's kind: a mark or space goes with the word behind it."""
    symbols = rf" ?[^\s{letters.strip('[]')}\p{{N}}]+{end}"
    return rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}|{symbols}|{_SPACES}"


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased_words(
    digits: str, ending: str, upper: str = _UPPER, lower: str = _LOWER, end: str = r"[\r\n/]*"
) -> str:
    """Return a pattern that cuts words where lower case turns into upper case."""
    mark = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{mark}{upper}*{lower}+{ending}|{mark}{upper}+{lower}*{ending}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+{end}|{_SPACES}"


_DIGIT, _DIGITS3 = r"\p{N}", r"\p{N}{1,3}"
_NOT_HAN = r"&&[^\p{Han}]]"
_KIMI = r"[\p{Han}]+|" + _cased_words(
    _DIGITS3,
    f"{_ANY_CASE}?",
    _UPPER.replace("]", _NOT_HAN),
    _LOWER.replace("]", _NOT_HAN),
    end=r"[\r\n]*",
)
_CHINESE = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)


@dataclass(frozen=True)
class WordSplit:
    """Describe how a text is cut.

    Args:
        patterns: each one cuts what those before it have left; matches and gaps are words.
        whole_words: a word of the vocabulary is one token, whatever the merges say.
        adds_bos: the token that begins a text is put there if the file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


_DEFAULT = WordSplit(
    (
        r"[\p{P}\$\+<=>\^~\|]+",
        _GPT2,
        r"\p{N}+",
        r"[0-9][0-9][0-9]",
    )
)
_LLAMA3 = WordSplit((_words(_DIGITS3),), whole_words=True, adds_bos=True)
_FAMILIES: tuple[tuple[WordSplit, str], ...] = (
    (_DEFAULT, "default"),
    (_LLAMA3, "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2"),
    (WordSplit((_words(_DIGITS3),)), "dbrx smaug-bpe chatglm-bpe glm4"),
    (
        WordSplit((_GPT2,)),
        "gpt-2 phi-2 mpt olmo jais trillion granite-docling gigachat a.x-4.0 mellum",
    ),
    (
        WordSplit((_DIGIT, _GPT2)),
        "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
    ),
    (
        WordSplit((_words(_DIGIT),)),
        "qwen2 stablelm2 hunyuan deepseek-r1-qwen kormo megrez solar-open grok-2",
    ),
    (WordSplit((_words(_DIGIT, r"[\p{L}\p{M}]"),)), "qwen35"),
    (WordSplit((_DIGITS3, _CHINESE, _DEEPSEEK3)), "deepseek-v3 hunyuan-dense joyai-llm"),
    (
        WordSplit((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", _DIGIT)),
        "deepseek-coder",
    ),
    (
        WordSplit((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
        "falcon",
    ),
    (WordSplit((r" ?[^(\s|.,!?…。，、।۔،)]+",)), "poro-chat bloom gpt3-finnish"),
    (WordSplit((r" ?[^(\s|.,!?…。，、।۔،)]+", _DIGIT)), "viking"),
    (WordSplit((_cased_words(_DIGIT, ""),), whole_words=True, adds_bos=True), "tekken"),
    (
        WordSplit((_cased_words(_DIGITS3, f"{_ANY_CASE}?"),)),
        "gpt-4o llama4 kanana2 minimax-m2",
    ),
    (WordSplit((_KIMI,), whole_words=True), "kimi-k2"),
    (WordSplit((r"\p{N}+", r"(?=(\d{3})+(?!\d))")), "superbpe"),
    (WordSplit((_words(_DIGIT, end=""),)), "seed-coder"),
)
WORD_SPLITS: Mapping[str, WordSplit] = MappingProxyType(
    {name: split for split, names in _FAMILIES for name in names.split()}
)
