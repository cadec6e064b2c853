"""Distillation losses as pure functions of tensors.

One convention for all: a loss is a sum over *counted* positions divided by the number of counted
positions. `counted` is a boolean mask over positions (all of them if it is left out); padding and
positions without a label are not counted. `n_counted` replaces the divisor where one optimizer
step is made of several batches, so that 1x32 and 4x8 give the same gradient. Logits that may be
infinite or not a number where nothing is counted are selected first, `logits[counted]`: a gradient
of zero times NaN is NaN. Losses are computed in float32 at least: the difference of two log-probs
in bfloat16 is mostly rounding, and T² multiplies it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_over_counted(
    per_position: Tensor, counted: Tensor | None = None, n_counted: Tensor | int | None = None
) -> Tensor:
    """The sum of `per_position` over counted positions divided by their number; 0 if there is none.

    A position that is not counted adds nothing to the loss, and its gradient is zero, even where
    `per_position` is infinite or not a number.
    """
    if counted is not None:
        per_position = per_position[counted]
    if n_counted is None:
        n_counted = per_position.numel()
    return per_position.sum() / (n_counted + (n_counted == 0))


def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """T² times the cross-entropy of the student against the teacher's soft classes, per position.

    Logits are (..., C); the result is (...), in nats. Hinton et al. 2015, section 2: T² keeps the
    size of the gradient when T changes. Differs from `soft_kl` by T² times the teacher's entropy,
    which no student can change.
    """
    targets = _soft_log_probs(teacher_logits, temperature).exp()
    log_probs = _soft_log_probs(student_logits, temperature)
    return -(targets * log_probs).sum(-1) * temperature**2


def soft_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T² times KL(teacher ‖ student) of the softened classes, per position.

    Logits are (..., C); the result is (...), in nats, 0 where both agree. The gradient for the
    student's logits is T · (softmax(s/T) - softmax(t/T)). Hinton et al. 2015, section 2.
    """
    student = _soft_log_probs(student_logits, temperature)
    teacher = _soft_log_probs(teacher_logits, temperature)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2


def hard_cross_entropy(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
    """The cross-entropy against class numbers, per position, in nats; 0 where the label is -100.

    Logits are (..., C), labels (...). Logits without a label get a zero gradient, even if NaN.
    """
    counted = labels != ignore_index
    losses = F.cross_entropy(_precise(logits[counted]), labels[counted], reduction="none")
    return losses.new_zeros(labels.shape).masked_scatter(counted, losses)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    temperature: float,
    n_counted: Tensor | int | None = None,
) -> Tensor:
    """alpha · hard + (1 - alpha) · soft, averaged over the N examples; a scalar in nats.

    Logits are (N, C), labels (N,). An example without a label (-100) has the soft loss alone, with
    weight 1. `n_counted` is the number of examples of the whole optimizer step, if that is more
    than this batch. Hinton et al. 2015, section 2.
    """
    alphas = torch.where(labels == -100, 0.0, alpha)
    hard = hard_cross_entropy(student_logits, labels)
    soft = soft_kl(student_logits, teacher_logits, temperature=temperature)
    return mean_over_counted(alphas * hard + (1 - alphas) * soft, n_counted=n_counted)


def hidden_mse(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    *,
    counted: Tensor | None = None,
    n_counted: Tensor | int | None = None,
) -> Tensor:
    """The squared distance between hidden states (..., H), averaged over H and counted positions.

    Romero et al. 2015 (FitNets), equation 3; equal widths, so no projection.
    """
    if counted is not None:
        student_hidden, teacher_hidden = student_hidden[counted], teacher_hidden[counted]
    distances = (_precise(student_hidden) - _precise(teacher_hidden)).square().mean(-1)
    return mean_over_counted(distances, n_counted=n_counted)


def _soft_log_probs(logits: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(_precise(logits) / temperature, dim=-1)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
