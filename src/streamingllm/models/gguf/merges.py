"""Derive the merges of a SentencePiece vocabulary, which a GGUF file states only by scores."""

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
    merges = []
    find = ids.get
    for token in sorted(ids, key=lambda token: (-scores[ids[token]], ids[token])):
        pairs = []
        for cut in range(1, len(token)):
            left = find(token[:cut])
            if left is not None and (right := find(token[cut:])) is not None:
                pairs.append((left, right, cut))
        if len(pairs) > 1:
            pairs.sort()
        merges += [(token[:cut], token[cut:]) for _, _, cut in pairs]
    return merges
