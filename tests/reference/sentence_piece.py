"""The merging of SentencePiece's BPE as llama.cpp does it, plainly: best neighbours first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SPACE = "\u2581"


def tokenize(text: str, ids: Mapping[str, int], scores: Sequence[float], prefix: bool) -> list[int]:
    """Return the ids of a text without special tokens.

    Args:
        text: to cut.
        ids: of each token; a byte that has none is `<0xNN>`.
        scores: by id.
        prefix: whether a space is put before the text.
    """
    pieces = list((" " + text if prefix and text else text).replace(" ", SPACE))
    while True:
        best = None
        for index in range(len(pieces) - 1):
            token_id = ids.get(pieces[index] + pieces[index + 1])
            if token_id is not None and (best is None or scores[token_id] > best[0]):
                best = (scores[token_id], index)
        if best is None:
            break
        index = best[1]
        pieces[index : index + 2] = [pieces[index] + pieces[index + 1]]
    found: list[int] = []
    for piece in pieces:
        if piece in ids:
            found.append(ids[piece])
        else:
            found += [ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
    return found
