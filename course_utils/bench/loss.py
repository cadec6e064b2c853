"""`course bench loss`: the chunked soft loss over a vocabulary against the plain one.

A head is a matrix with a bias, as BERT's decoder is. A step is the loss and its gradients for the
student's hidden states, matrix and bias, all in float32.

The memory of a step is the peak of the process during its first step less what the process held
just before: Python, libraries that a small step has made load all they need, weights and hidden
states. The gradients that a step hands over count, for either way has to make them. On a GPU it is
the same difference of what torch has allocated there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

from course_utils import machine

if TYPE_CHECKING:
    from torch import Tensor

# N positions, V words, H numbers per hidden state: 32 texts of 128 tokens for MiniLM.
SIZES = {"smoke": (512, 2048, 64), "cpu": (4096, 30522, 384), "gpu": (4096, 30522, 384)}
TEMPERATURE = 2.0
STEPS = 5
WAYS = ("plain", "chunked")


def rows(measured: dict[str, dict]) -> list[dict]:
    """One per way: its `name`, the `work`, `seconds` and `peak_memory_mb` of a step, both divided
    by those of `plain` (`time_ratio`, `memory_ratio`), and `gradient_difference`.

    That is |gradient - plain's| / |plain's|, lengths of vectors, the largest of three gradients.
    """
    n, v, h = SIZES[machine.profile()]
    plain = measured["plain"]
    return [
        {
            "name": way,
            "work": f"soft loss and gradients, N = {n}, V = {v}, H = {h}",
            "seconds": round(found["seconds"], 3),
            "peak_memory_mb": round(found["peak_memory_mb"]),
            "time_ratio": round(found["seconds"] / plain["seconds"], 2),
            "memory_ratio": round(found["peak_memory_mb"] / plain["peak_memory_mb"], 3),
            "gradient_difference": float(f"{found['gradient_difference']:.1e}"),
        }
        for way, found in measured.items()
    ]


def measure(way: str) -> dict:
    """`peak_memory_mb` of the first step, the median `seconds` of those after it, and how far its
    gradients are from those of `plain`.
    """
    import torch

    machine.use_all_cores()
    torch.manual_seed(0)
    n, v, h = SIZES[machine.profile()]
    device = machine.describe().device
    heads = [torch.nn.Linear(h, v, device=device) for _ in range(2)]
    for head in heads:
        torch.nn.init.normal_(head.weight, std=2 / h**0.5)  # logits of a standard deviation of 2
    student, teacher = (torch.randn(n, h, device=device) for _ in range(2))
    student.requires_grad_()

    def step(way: Callable[..., Tensor], n: int = n) -> list[Tensor]:
        inputs = [student, *heads[0].parameters()]
        gradients = torch.autograd.grad(way(student[:n], teacher[:n], *heads), inputs)
        if device == "cuda":
            torch.cuda.synchronize()
        return list(gradients)

    loss = {"plain": plain, "chunked": chunked}[way]
    step(loss, n=8)
    peak_memory_mb = _peak_memory_mb(lambda: step(loss), device)
    return {
        "peak_memory_mb": peak_memory_mb,
        "seconds": median(_seconds(lambda: step(loss)) for _ in range(STEPS)),
        "gradient_difference": max(
            ((found - expected).norm() / expected.norm()).item()
            for found, expected in zip(step(loss), step(plain), strict=True)
        ),
    }


def plain(student: Tensor, teacher: Tensor, student_head: Callable, teacher_head: Callable):
    """The loss as the formula has it, all logits at once; the teacher without gradient."""
    import torch

    from course_utils.distill.losses import mean_over_counted, soft_kl

    with torch.no_grad():
        teacher_logits = teacher_head(teacher)
    logits = student_head(student)
    return mean_over_counted(soft_kl(logits, teacher_logits, temperature=TEMPERATURE))


def chunked(student: Tensor, teacher: Tensor, student_head: Callable, teacher_head: Callable):
    """The same number, from a few hundred positions at a time."""
    from course_utils.distill.chunked import chunked_soft_kl

    return chunked_soft_kl(student, teacher, student_head, teacher_head, temperature=TEMPERATURE)


def _seconds(step: Callable) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _peak_memory_mb(step: Callable, device: str) -> float:
    """10^6 bytes that `step` needs at its peak, beyond what is held before it."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    import psutil

    from course_utils.measure.size import own_peak_memory_mb

    before = psutil.Process().memory_info().rss / 1e6
    step()
    return own_peak_memory_mb() - before
