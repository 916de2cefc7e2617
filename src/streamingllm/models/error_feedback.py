"""Round weights to four bits so that outputs change little: fitted groups and error feedback."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamingllm.kernels.packing import GROUP_SIZE, PackedWeight, pack_weight

_LARGEST_CODE = 15
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)
_NUM_REFITS = 2
_DAMPING = 0.01  # of the mean of the diagonal
_BLOCK_COLUMNS = 128


@dataclass(frozen=True)
class Groups:
    """Hold the grid of each group: scale * code + minimum, both exact in float16.

    Args:
        scales: float32, [out_features, groups].
        minimums: float32, [out_features, groups].
    """

    scales: Tensor
    minimums: Tensor

    def codes(self, values: Tensor) -> Tensor:
        """Return the nearest codes of values [out_features, groups, ...]."""
        scales = torch.where(self.scales == 0, 1.0, self.scales)[..., None]
        return ((values - self.minimums[..., None]) / scales).round_().clamp_(0, _LARGEST_CODE)

    def values(self, codes: Tensor) -> Tensor:
        """Return what codes [out_features, groups, ...] stand for."""
        return codes * self.scales[..., None] + self.minimums[..., None]


def fit_groups(weight: Tensor, importance: Tensor) -> Groups:
    """Choose the scale and minimum of each group that change its weights least.

    Ranges are cut by several factors. Each cut is refitted by least squares to its own codes.

    Args:
        weight: float32, [out_features, in_features].
        importance: of the square error of each column, float32, [in_features].

    Source: make_qkx2_quants in ggml-quants.c of https://github.com/ggml-org/ggml, which searches a
    scale and fits a minimum in the same way. Here both are kept in half precision.
    """
    groups = weight.unflatten(1, (-1, GROUP_SIZE))
    factors = importance.view(1, -1, GROUP_SIZE).clamp_min(1e-12)
    low, high = groups.amin(-1), groups.amax(-1)
    best, least = _halved((high - low) / _LARGEST_CODE, low), None
    for shrink in _SHRINKS:
        middle, half = (high + low) / 2, (high - low) / 2 * shrink
        tried = _halved(2 * half / _LARGEST_CODE, middle - half)
        for _ in range(_NUM_REFITS):
            codes = tried.codes(groups)
            error = (factors * (tried.values(codes) - groups).square()).sum(-1)
            if least is None:
                best, least = tried, error
            is_better = error < least
            best = Groups(
                torch.where(is_better, tried.scales, best.scales),
                torch.where(is_better, tried.minimums, best.minimums),
            )
            least = torch.minimum(least, error)
            tried = _refit(groups, codes, factors, tried)
    return best


def _refit(groups: Tensor, codes: Tensor, factors: Tensor, fallback: Groups) -> Groups:
    """Return the scales and minimums of least weighted squares for given codes."""
    total = factors.sum(-1)
    mean_code = (factors * codes).sum(-1) / total
    mean_weight = (factors * groups).sum(-1) / total
    spread = (factors * (codes - mean_code[..., None]).square()).sum(-1)
    shared = (factors * (codes - mean_code[..., None]) * groups).sum(-1)
    scales = torch.where(spread > 0, shared / spread.clamp_min(1e-30), fallback.scales)
    return _halved(scales, mean_weight - scales * mean_code)


def _halved(scales: Tensor, minimums: Tensor) -> Groups:
    return Groups(scales.half().float(), minimums.half().float())


def round_with_feedback(weight: Tensor, moments: Tensor) -> PackedWeight:
    """Round a weight to four bits, column by column.

    What rounding a column changes in the outputs is made up for by the columns that follow. Columns
    of large activations come first. Groups are chosen before, because they are runs of neighbours.

    Args:
        weight: float32, [out_features, in_features].
        moments: sum of x x^T over activations x, float32, [in_features, in_features].

    Source: Frantar et al., "GPTQ" (arXiv 2210.17323), section 3.3. Deviation: groups keep the grid
    that `fit_groups` gave them (gptq's `static_groups`).
    """
    moments = moments.double()
    diagonal = moments.diagonal()
    groups = fit_groups(weight, diagonal.float())
    order = diagonal.argsort(descending=True)
    inverse = _inverse_factor(moments[order][:, order])
    if inverse is None:
        codes = groups.codes(weight.unflatten(1, (-1, GROUP_SIZE))).flatten(1)
        return _packed(codes, groups)
    columns = _feed_back(weight.mT[order].contiguous(), inverse, order // GROUP_SIZE, groups)
    codes = torch.empty_like(weight)
    codes[:, order] = columns.mT
    return _packed(codes, groups)


def _feed_back(rest: Tensor, inverse: Tensor, group_of: Tensor, groups: Groups) -> Tensor:
    """Return the codes of columns in their order; `rest` is used up.

    Args:
        rest: the weight's columns, float32, [in_features, out_features].
        inverse: what `_inverse_factor` returned.
        group_of: the group of each column.
        groups: of the weight.
    """
    codes = torch.empty_like(rest)
    scales, minimums = groups.scales.mT.contiguous(), groups.minimums.mT.contiguous()
    divisors = torch.where(scales == 0, 1.0, scales)
    numbers = group_of.tolist()
    for start in range(0, len(rest), _BLOCK_COLUMNS):
        end = min(start + _BLOCK_COLUMNS, len(rest))
        block, errors = rest[start:end], torch.empty_like(rest[start:end])
        factor = inverse[start:end, start:end].contiguous()
        pivots = factor.diagonal().tolist()
        for i, pivot in enumerate(pivots):
            at = numbers[start + i]
            code = codes[start + i]
            torch.sub(block[i], minimums[at], out=code)
            code.div_(divisors[at]).round_().clamp_(0, _LARGEST_CODE)
            value = torch.addcmul(minimums[at], code, scales[at])
            torch.sub(block[i], value, out=errors[i]).div_(pivot)
            block[i + 1 :].addr_(factor[i, i + 1 :], errors[i], alpha=-1)
        rest[end:].addmm_(inverse[start:end, end:].mT, errors, alpha=-1)
    return codes


def _inverse_factor(moments: Tensor) -> Tensor | None:
    """Return the upper Cholesky factor of the inverse, float32; None if there is none."""
    diagonal = moments.diagonal()
    mean = diagonal.mean()
    if not bool(mean > 0):
        return None
    damped = moments + torch.diag(_DAMPING * mean + (diagonal == 0).double() * mean)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed):
        return None
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if bool(failed) else upper.float()


def _packed(codes: Tensor, groups: Groups) -> PackedWeight:
    return pack_weight(codes.to(torch.int8), groups.scales.half(), groups.minimums.half(), 4)
