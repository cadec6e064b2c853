"""The ranges of what goes into each linear layer, seen on real texts, and where to cut them.

Static quantization fixes an activation's scale before the model runs. The largest number ever seen
wastes most of the integers on one outlier; a cut range clips it and is finer for all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_utils.compress.amounts import number
from course_utils.compress.quantization import need_bits
from course_utils.compress.reading import batches, need_readable
from course_utils.data.encoding import EncodedTexts, pad
from course_utils.errors import DataError

BINS = 2048
STEP = 8  # bins between two cuts that the entropy method tries


@dataclass(frozen=True)
class Observed:
    """What went into one linear layer: its range, a histogram over it, and each channel's peak."""

    low: float
    high: float
    counts: Tensor  # (BINS,) int64: numbers in each of the equal parts of low to high
    channel_max: Tensor  # (K,) the largest absolute value in each of the K inputs


class Outlier(NamedTuple):
    """How far the largest input channel of a linear layer stands above the others."""

    name: str
    channel: int
    largest: float
    median: float

    @property
    def ratio(self) -> float:
        return self.largest / self.median if self.median else float("inf")


def observe(
    model: PreTrainedModel, texts: EncodedTexts, *, batch_size: int = 32
) -> dict[str, Observed]:
    """What goes into each `nn.Linear` of the model, by its name, over all tokens but padding.

    The model reads the texts twice, for the ranges and then for the histograms, in eval mode, and
    is afterwards as it was. Raises `DataError` when there is no token but padding to be seen, and
    for texts that the model cannot read.
    """
    need_readable(model, texts)
    padding = model.config.pad_token_id
    rows = [row for row in texts.input_ids if any(i != padding for i in row)]
    if not rows:
        raise DataError(
            f"The {len(texts)} calibration texts hold nothing but padding.",
            do="Give a hundred or more texts like those the model will read.",
        )
    rows.sort(key=len)
    read = batches(rows, batch_size)
    return summarise(lambda: _linear_inputs(model, read))


def summarise(inputs: Callable[[], Iterable[tuple[str, Tensor]]]) -> dict[str, Observed]:
    """What was seen under each name. `inputs()`, called twice, yields names and values (N, K).

    Raises `DataError` for values that are not finite.
    """
    low, high, peaks, counts = {}, {}, {}, {}
    for name, values in inputs():
        low[name] = min(low.get(name, 0.0), values.min().item())
        high[name] = max(high.get(name, 0.0), values.max().item())
        peak = values.abs().amax(0)  # (K,)
        peaks[name] = torch.maximum(peaks.get(name, peak), peak)
    if wrong := [name for name, peak in peaks.items() if not peak.isfinite().all()]:
        raise DataError(
            f"What goes into {wrong[0]} is not finite.",
            do="Look for NaN and infinities in the model's weights.",
        )
    for name, values in inputs():
        seen = torch.histc(values, BINS, low[name], high[name]).long()
        counts[name] = counts.get(name, 0) + seen
    return {name: Observed(low[name], high[name], counts[name], peaks[name]) for name in counts}


def min_max(seen: Observed) -> tuple[float, float]:
    """The whole range: nothing that was seen is clipped."""
    return seen.low, seen.high


def percentile(seen: Observed, share: float = 0.9999) -> tuple[float, float]:
    """The range that holds this share of the numbers, half of the others on either side of it.

    Raises `DataError` unless the share is above 0 and at most 1.
    """
    if not 0 < number(share) <= 1:
        raise DataError(
            f"A share of {share} of the numbers cannot be kept.", do="Take 0.99 to 0.99999."
        )
    outside = (1 - share) / 2 * seen.counts.sum().item()
    edges = torch.linspace(seen.low, seen.high, BINS + 1, dtype=torch.float64)
    first = int((seen.counts.cumsum(0) <= outside).sum())  # whole bins that are left out
    last = BINS - int((seen.counts.flip(0).cumsum(0) <= outside).sum())
    return edges[first].item(), edges[last].item()


def entropy(seen: Observed, bits: int = 8) -> tuple[float, float]:
    """The range whose integers tell least less than the numbers did, by the KL divergence.

    Every cut is tried, at the same distance t on both sides of 0. The numbers beyond t count as t;
    those within fall into 2^(bits-1) levels, as an int8 of one sign has them. Kept is the t with
    the least KL(before ‖ after). Migacz 2017, "8-bit inference with TensorRT", GTC. Raises
    `DataError` for bits other than 2 to 8.
    """
    need_bits(bits)
    levels = 2 ** (bits - 1)
    edges = np.linspace(seen.low, seen.high, BINS + 1)
    centres, weights = np.abs(edges[1:] + edges[:-1]) / 2, seen.counts.numpy().astype(float)
    furthest = max(-seen.low, seen.high)
    if not furthest:  # all numbers were zero
        return 0.0, 0.0
    counts, _ = np.histogram(centres, BINS, range=(0, furthest), weights=weights)
    cuts = range(levels, BINS + 1, STEP)
    best = min(cuts, key=lambda cut: _divergence(counts, cut, levels))
    t = furthest * best / BINS
    return max(seen.low, -t), min(seen.high, t)


RANGES: dict[str, Callable[[Observed], tuple[float, float]]] = {
    "min-max": min_max,
    "percentile": percentile,
    "entropy": entropy,
}


def outliers(observed: Mapping[str, Observed]) -> list[Outlier]:
    """For each layer its largest channel beside the median one, the most extreme layer first."""
    report = [
        Outlier(
            name,
            int(seen.channel_max.argmax()),
            seen.channel_max.max().item(),
            seen.channel_max.median().item(),
        )
        for name, seen in observed.items()
    ]
    return sorted(report, key=lambda outlier: outlier.ratio, reverse=True)


def _divergence(counts: np.ndarray, cut: int, levels: int) -> float:
    """KL, in nats, from the numbers cut at bin `cut` to what `levels` integers keep of them."""
    before = counts[:cut].copy()
    starts = np.arange(levels) * cut // levels  # the first bin of each level
    level_of = np.repeat(np.arange(levels), np.diff(starts, append=cut))  # (cut,)
    filled = before > 0
    n_filled = np.add.reduceat(filled.astype(float), starts)
    level = np.add.reduceat(before, starts) / np.maximum(n_filled, 1)
    after = np.where(filled, level[level_of], 0)  # a level's numbers, even over its filled bins
    before[-1] += counts[cut:].sum()  # what is clipped lands in the last bin
    if not after.sum():
        return float("inf")
    p, q = before / before.sum(), after / after.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))).sum())


@torch.no_grad()
def _linear_inputs(
    model: PreTrainedModel, batches: list[list[list[int]]]
) -> Iterator[tuple[str, Tensor]]:
    """Names of linear layers and what goes into them, (N, K) without padding, batch by batch."""
    seen: list[tuple[str, Tensor]] = []
    linears = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    hooks = [
        part.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0])))
        for name, part in linears.items()
    ]
    training = model.training
    model.eval()
    try:
        for rows in batches:
            batch = pad(rows, model.config.pad_token_id)
            batch["attention_mask"] &= batch["input_ids"] != model.config.pad_token_id
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            seen.clear()
            model(**batch)
            for name, values in seen:
                if values.ndim == 3:  # (B, S, K); the pooler's are (B, K)
                    values = values[batch["attention_mask"].bool()]  # (N, K)
                yield name, values.reshape(-1, values.shape[-1]).float().cpu()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
