"""The soft loss over a whole vocabulary, without ever holding the logits of all positions.

For 4 096 positions and BERT's 30 522 words one float32 tensor of logits takes 500 MB, and the plain
loss needs several. Here the heads see a few hundred positions at a time; the gradient of these is
worked out at once, from its formula, and their logits are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from course_utils.distill.losses import softened
from course_utils.distill.refusals import need_finite, need_same_classes
from course_utils.errors import CourseError, DataError

Head = Callable[[Tensor], Tensor]


def chunked_soft_kl(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: Head,
    teacher_head: Head,
    *,
    temperature: float = 1.0,
    chunk_size: int = 256,
    n_counted: Tensor | int | None = None,
) -> Tensor:
    """The mean over N positions of `soft_kl` of the heads' logits; a scalar in nats.

    Hidden states are (N, H) and (N, H'), of the counted positions alone: `hidden[counted]`. A head
    is a module or a function from (n, H) to logits (n, V); no position may look at another in it.
    The gradient goes into `student_hidden` and into every parameter that the student's head uses
    and that requires one. It is worked out here, not in the backward pass, and cannot be
    differentiated again. The teacher gets none.

    `n_counted` replaces the divisor N. Without a position the loss is 0 and its gradient zero.
    Raises what `soft_kl` raises, `NotFiniteError` for logits that are not finite, and
    `DataError` for hidden states that are not two matrices of N rows.
    """
    _need_rows(student_hidden, teacher_hidden, chunk_size)
    total = torch.zeros((), device=student_hidden.device)
    gradients: dict[Tensor, Tensor] = {}  # of `total`, by what they are for
    for rows in _chunks(len(student_hidden), chunk_size):
        hidden = student_hidden[rows].detach()  # (n, H)
        hidden.requires_grad_(student_hidden.requires_grad)
        loss, slopes = _chunk(hidden, teacher_hidden[rows], student_head, teacher_head, temperature)
        total = total + loss
        while slopes:  # taken out, so that none outlives its use
            leaf, slope = slopes.popitem()
            whole = student_hidden if leaf is hidden else leaf
            if whole not in gradients:
                gradients[whole] = torch.zeros_like(whole, dtype=total.dtype)
            gradients[whole][rows if leaf is hidden else ...] += slope
    if not torch.isfinite(total):  # asked once, at the end: a GPU stops for every such question
        with torch.no_grad():
            for rows in _chunks(len(student_hidden), chunk_size):
                need_finite(
                    total,
                    first_row=rows.start,
                    student_logits=student_head(student_hidden[rows]),
                    teacher_logits=teacher_head(teacher_hidden[rows]),
                )
    if n_counted is None:
        n_counted = len(student_hidden)
    total = _WithGradients.apply(total, list(gradients.values()), *gradients)
    return total / (n_counted + (n_counted == 0))


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients for `inputs` were worked out together with it."""

    @staticmethod
    def forward(ctx, loss: Tensor, gradients: list[Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor):
        if torch.is_grad_enabled():  # create_graph=True
            raise CourseError(
                "The gradient of the chunked loss cannot be differentiated again.",
                do="Take mean_over_counted(soft_kl(…)) of the whole logits.",
            )
        return None, None, *(upstream * gradient for gradient in ctx.saved_tensors)


def _chunk(
    hidden: Tensor, teacher_hidden: Tensor, student_head: Head, teacher_head: Head, t: float
) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """T² times the KL summed over n positions, and its gradient by leaf.

    For the student's logits the gradient is T · (softmax(s/T) - softmax(t/T)). It is left a sum:
    divided by the number of positions, its many small entries would vanish in float16.
    """
    logits = student_head(hidden)  # (n, V)
    with torch.no_grad():
        targets = teacher_head(teacher_hidden)  # (n, V)
        need_same_classes(logits, targets)
        targets = F.log_softmax(softened(targets, t), dim=-1)
        log_probs = F.log_softmax(softened(logits, t), dim=-1)
        probs = targets.exp()
        loss = torch.dot(probs.flatten(), targets.sub_(log_probs).flatten()) * t**2
        slope = log_probs.exp_().sub_(probs).mul_(t).to(logits.dtype)
        del targets, log_probs, probs  # the backward pass can use their room
    if not logits.requires_grad:
        return loss, {}
    leaves = _leaves(logits)
    with torch.autocast(logits.device.type, enabled=False):  # a backward pass is never under it
        return loss, dict(zip(leaves, torch.autograd.grad(logits, leaves, slope), strict=True))


def _leaves(computed: Tensor) -> list[Tensor]:
    """The tensors that collect a gradient and that `computed` was computed from.

    Asking the graph and not `head.parameters()` finds the weights of a function, too.
    """
    seen, todo = set(), [get_gradient_edge(computed).node]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += [previous for previous, _ in node.next_functions if previous is not None]
    return [node.variable for node in seen if hasattr(node, "variable")]


def _chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows; one empty slice for no row, so that a head's gradient is zero."""
    return (slice(start, start + size) for start in range(0, max(1, n), size))


def _need_rows(student_hidden: Tensor, teacher_hidden: Tensor, chunk_size: int) -> None:
    shapes = tuple(student_hidden.shape), tuple(teacher_hidden.shape)
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != shapes[1][0]:
        raise DataError(
            f"The hidden states are of shapes {shapes[0]} and {shapes[1]}, not (N, H) and (N, H').",
            do="Select the same positions of both: hidden[attention_mask.bool()].",
        )
    if chunk_size < 1:
        raise DataError(f"Chunks of {chunk_size} positions.", do="Take 1 or more; 256 is usual.")
