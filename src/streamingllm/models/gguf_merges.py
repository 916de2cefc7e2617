"""Merges of a SentencePiece vocabulary, which a GGUF file states only by scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def merges_from_scores(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return the pairs of tokens whose texts make up a token, the best token first.

    llama.cpp merges the pair of neighbours whose joint token has the highest score. A list of all
    pairs in the order of these scores leads to the same merges.

    Args:
        ids: of each token.
        scores: by id.
    """
    found = []
    for token, token_id in ids.items():
        for cut in range(1, len(token)):
            left = ids.get(token[:cut])
            if left is not None and (right := ids.get(token[cut:])) is not None:
                found.append((-scores[token_id], token_id, left, right, cut, token))
    found.sort(key=lambda entry: entry[:4])
    return [(token[:cut], token[cut:]) for *_, cut, token in found]
