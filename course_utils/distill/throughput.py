"""How fast a distillation runs: tokens per second, share of padding, and share of what could be.

MFU, *model FLOPs utilization*, is the arithmetic that the models need, per second, divided by what
the machine can do: Chowdhery et al. 2022 (PaLM), appendix B. They take the rate that the maker of
the hardware states; here it is measured.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel

from course_utils.models.anatomy import flops

# What is counted of a batch; the arithmetic of a step is linear in these four.
LABELLED, ATTENDED, PAIRS, PLACES = range(4)


@lru_cache(maxsize=8)
def matrix_rate(dtype: str, device: str) -> float:
    """Floating-point operations per second of square matrix products, the best of ten.

    Measured once for each data type and device, with the threads that torch uses.
    """
    side = 2048 if device == "cpu" else 8192
    matrix = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
    seconds = []
    for _ in range(10):
        before = time.perf_counter()
        torch.mm(matrix, matrix)
        if device != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - before)
    return 2 * side**3 / min(seconds)


def count(batch: dict[str, Tensor]) -> Tensor:
    """Four numbers of a batch, int64, on its device; nothing waits for them.

    `LABELLED` are its tokens with a label, `ATTENDED` those that are no padding, `PAIRS` those
    times the length, as each attends to so many, and `PLACES` all that the batch has room for.
    """
    labels, mask = batch["labels"], batch.get("attention_mask")  # (B, S)
    places = torch.full((), labels.numel(), device=labels.device)
    attended = places if mask is None else mask.sum()
    return torch.stack([(labels != -100).sum(), attended, attended * labels.shape[1], places])


def arithmetic(
    student: PreTrainedModel, teacher: PreTrainedModel | None, *, heads_at: int
) -> list[float]:
    """The operations that each of the four counted things costs, forward and backward.

    A forward pass is counted as in `anatomy.flops`, a backward pass as two of them; the teacher has
    none. `heads_at`, `LABELLED` or `ATTENDED`, says which tokens the heads see. What padding costs,
    and what is computed a second time, is not counted: it is waste.
    """
    cost = [0.0] * 4
    for model, passes in ((student, 3), (teacher, 1)):
        if model is not None:
            parts = flops(model.config, 1, kind=AutoModelForMaskedLM)
            cost[heads_at] += passes * parts.pop("head")
            cost[PAIRS] += passes * parts.pop("attention scores")
            cost[ATTENDED] += passes * sum(parts.values())
    return cost


class Meter:
    """What was trained on between two lines of the log, and how fast.

    `cost` is what `arithmetic` says, `rate` is the `matrix_rate` of all processes together.
    """

    def __init__(self, cost: list[float], rate: float):
        self.cost, self.rate = cost, rate
        self.reset()

    def reset(self) -> None:
        """Nothing is counted yet; the clock waits for `start`."""
        self.counts: Tensor | None = None
        self.started: float | None = None

    def start(self) -> None:
        """The clock runs from now on, unless it does already."""
        self.started = self.started or time.perf_counter()

    def add(self, counts: Tensor) -> None:
        """The numbers of one step, as from `count`, are added on their device."""
        self.counts = counts if self.counts is None else self.counts + counts

    def read(self) -> dict[str, float]:
        """`tokens_per_s` without padding, `padding_share` and `mfu`, both 0 to 1."""
        seconds = time.perf_counter() - self.started
        counts = self.counts.tolist()
        operations = sum(n * each for n, each in zip(counts, self.cost, strict=True))
        return {
            "tokens_per_s": counts[ATTENDED] / seconds,
            "padding_share": 1 - counts[ATTENDED] / counts[PLACES],
            "mfu": operations / seconds / self.rate,
        }
