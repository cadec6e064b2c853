"""Distillation losses as pure functions of tensors.

One convention for all: a loss is a sum over *counted* positions divided by the number of counted
positions. `counted` is a boolean mask over positions (all of them if it is left out); padding and
positions without a label are not counted. `n_counted` replaces the divisor where one optimizer
step is made of several batches, so that 1x32 and 4x8 give the same gradient. Where nothing is
counted the loss is 0 and so is its gradient: a batch that happens to hold no masked word says
nothing, and must not turn the weights of all others into NaN, as 0/0 would. Logits that may be
infinite or not a number where nothing is counted are selected first, `logits[counted]`: a gradient
of zero times NaN is NaN. Losses are computed in float32 at least: the difference of two log-probs
in bfloat16 is mostly rounding, and T² multiplies it.

Sizes that differ raise `ModelError` or `DataError`, settings out of range `DataError`, and a loss
that is not finite because a model's output is not raises `NotFiniteError`, a `ModelError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.distill.refusals import (
    need_binary_labels,
    need_finite,
    need_labels,
    need_mask,
    need_positions,
    need_same_classes,
    need_same_width,
    need_share,
    need_temperature,
    need_weights,
)
from course_utils.errors import DataError


def mean_over_counted(
    per_position: Tensor, counted: Tensor | None = None, n_counted: Tensor | int | None = None
) -> Tensor:
    """The sum of `per_position` over counted positions divided by their number; 0 if there is none.

    A position that is not counted adds nothing to the loss, and its gradient is zero, even where
    `per_position` is infinite or not a number.
    """
    if counted is not None:
        need_mask(counted, per_position.shape)
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
    need_same_classes(student_logits, teacher_logits)
    targets = F.softmax(softened(teacher_logits, temperature), dim=-1)
    log_probs = F.log_softmax(softened(student_logits, temperature), dim=-1)
    return -(targets * log_probs).sum(-1) * temperature**2


def soft_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T² times KL(teacher ‖ student) of the softened classes, per position.

    Logits are (..., C); the result is (...), in nats, 0 where both agree. The gradient for the
    student's logits is T · (softmax(s/T) - softmax(t/T)). Hinton et al. 2015, section 2.
    """
    need_same_classes(student_logits, teacher_logits)
    student = F.log_softmax(softened(student_logits, temperature), dim=-1)
    teacher = F.log_softmax(softened(teacher_logits, temperature), dim=-1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2


def hard_cross_entropy(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
    """The cross-entropy against class numbers, per position, in nats; 0 where the label is -100.

    Logits are (..., C), labels (...). Logits without a label get a zero gradient, even if NaN.
    """
    need_labels(labels, logits)
    counted = labels != ignore_index
    try:
        losses = F.cross_entropy(
            _precise(logits[counted]),  # (N, C)
            labels[counted].long(),
            ignore_index=ignore_index,
            reduction="none",
        )
    except IndexError as error:  # asked in advance, a GPU would have to stop and answer
        raise DataError(
            f"A label is none of the {logits.shape[-1]} classes: {error}",
            do=f"Number the classes from 0 to {logits.shape[-1] - 1}; {ignore_index} is no label.",
        ) from error
    return losses.new_zeros(labels.shape).masked_scatter(counted, losses)


def is_multi_label(labels: Tensor) -> bool:
    """Whether labels are (N, C) 0.0 and 1.0, for any number of classes, not (N,) class numbers.

    Numbers of words, (B, S), are two-dimensional, too; only 0.0 and 1.0 are of a floating type.
    """
    return labels.ndim > 1 and labels.is_floating_point()


def has_label(labels: Tensor) -> Tensor:
    """Which positions have a label, as true and false; a row of -100 is none for any class."""
    return (labels[..., 0] if is_multi_label(labels) else labels) != -100


def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`hard_binary` or `hard_cross_entropy`, per position, as the labels' kind asks for."""
    return (hard_binary if is_multi_label(labels) else hard_cross_entropy)(logits, labels)


def hard_binary(logits: Tensor, labels: Tensor) -> Tensor:
    """The binary cross-entropy, summed over the classes, per position, in nats; 0 without labels.

    Logits and labels are (..., C); a label is 1.0 where the class applies, 0.0 where not. A row of
    -100 is a position without labels, with a zero gradient. Each class is a decision of its own:
    log 2 is what a logit of 0 costs, whatever the number of classes.
    """
    need_binary_labels(labels, logits)
    counted = labels[..., 0] != -100
    kept = _precise(logits[counted])  # (N, C)
    targets = labels[counted].to(kept.dtype)
    losses = F.binary_cross_entropy_with_logits(kept, targets, reduction="none").sum(-1)
    return losses.new_zeros(counted.shape).masked_scatter(counted, losses)


def soft_binary_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """T² times KL(teacher ‖ student) of yes and no to each class, summed over them, per position.

    Logits are (..., C); the result is (...), in nats, 0 where both agree. Hinton et al. 2015,
    section 2, for two classes with the logits z and 0: their softmax at T is sigmoid(z/T). The
    gradient for the student's logits is T · (sigmoid(s/T) - sigmoid(t/T)).
    """
    need_same_classes(student_logits, teacher_logits)
    student, teacher = softened(student_logits, temperature), softened(teacher_logits, temperature)
    kl = sum(
        F.kl_div(F.logsigmoid(s), F.logsigmoid(t), reduction="none", log_target=True)
        for s, t in ((student, teacher), (-student, -teacher))
    )  # (..., C)
    return kl.sum(-1) * temperature**2


def masked_lm(logits: Tensor, labels: Tensor, *, n_counted: Tensor | int | None = None) -> Tensor:
    """The mean cross-entropy over the positions that have a label; a scalar in nats.

    Logits are (..., V), labels (...), -100 where no word was hidden. Devlin et al. 2019, section
    3.1, task 1.
    """
    counted = labels != -100
    loss = mean_over_counted(hard_cross_entropy(logits, labels), counted, n_counted)
    return need_finite(loss, counted, model_logits=logits)


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

    Logits are (N, C), labels (N,), or (N, C) 0.0 and 1.0 where an example may have several classes:
    then the losses are the binary ones, summed over the classes. An example without a label (-100)
    has the soft loss alone, with weight 1. `n_counted` is the number of examples of the whole
    optimizer step, if that is more than this batch. Hinton et al. 2015, section 2.
    """
    need_share(alpha)
    alphas = torch.where(has_label(labels), alpha, 0.0)
    hard = hard_loss(student_logits, labels)
    soft_loss = soft_binary_kl if is_multi_label(labels) else soft_kl
    soft = soft_loss(student_logits, teacher_logits, temperature=temperature)
    loss = mean_over_counted(alphas * hard + (1 - alphas) * soft, n_counted=n_counted)
    return need_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)


def hidden_mse(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    *,
    counted: Tensor | None = None,
    n_counted: Tensor | int | None = None,
) -> Tensor:
    """The squared distance between hidden states (..., H), averaged over H and counted positions.

    Romero et al. 2015 (FitNets), equation 3, where a regressor brings the student's hidden states
    to the teacher's width: give this function its output.
    """
    return _hidden_loss(_squares, student_hidden, teacher_hidden, counted, n_counted)


def hidden_cosine(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    *,
    counted: Tensor | None = None,
    n_counted: Tensor | int | None = None,
) -> Tensor:
    """1 minus the cosine between hidden states (..., H), averaged over counted positions; 0 to 2.

    It sees directions alone: a student ten times as long as its teacher loses nothing. Sanh et al.
    2019 (DistilBERT), section 2, there over the last layer.
    """
    return _hidden_loss(_one_minus_cosine, student_hidden, teacher_hidden, counted, n_counted)


class TripleLoss(NamedTuple):
    """The weighted sum to be minimized, and its three parts as they are before weighing."""

    total: Tensor
    soft: Tensor
    masked_lm: Tensor
    cosine: Tensor


def triple_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    attention_mask: Tensor,
    *,
    temperature: float = 2.0,
    soft: float = 5.0,
    hard: float = 2.0,
    cosine: float = 1.0,
    n_attended: Tensor | int | None = None,
    n_labelled: Tensor | int | None = None,
) -> TripleLoss:
    """soft · soft KL + hard · masked LM + cosine · hidden cosine, and the parts; scalars.

    Logits are (B, S, V), hidden states (B, S, H) those of the last layer, `labels` and
    `attention_mask` (B, S). KL and cosine are means over all attended positions, masked or not; the
    masked-LM loss is one over the positions with a label. `n_attended` and `n_labelled` replace
    the divisors when a step is made of several batches.

    Sanh et al. 2019 (DistilBERT), section 2, has the three terms; it says neither the weights nor
    T nor the positions. Those are the ones of the authors' code: weights 5, 2 and 1, T = 2.
    """
    need_weights(soft=soft, hard=hard, cosine=cosine)
    need_same_classes(student_logits, teacher_logits)
    need_positions(attention_mask, student_logits.shape[:-1], "attention_mask")
    attended = attention_mask.bool()  # (B, S), N of them true
    kl = soft_kl(
        student_logits[attended], teacher_logits[attended], temperature=temperature
    )  # (N,)
    soft_loss = mean_over_counted(kl, n_counted=n_attended)
    need_finite(soft_loss, attended, student_logits=student_logits, teacher_logits=teacher_logits)
    lm_loss = masked_lm(student_logits, labels, n_counted=n_labelled)
    cosine_loss = hidden_cosine(
        student_hidden, teacher_hidden, counted=attended, n_counted=n_attended
    )
    total = soft * soft_loss + hard * lm_loss + cosine * cosine_loss
    return TripleLoss(total, soft_loss, lm_loss, cosine_loss)


def _hidden_loss(
    distance: Callable[[Tensor, Tensor], Tensor],
    student: Tensor,
    teacher: Tensor,
    counted: Tensor | None,
    n_counted: Tensor | int | None,
) -> Tensor:
    need_same_width(student, teacher)
    pair = student, teacher
    if counted is not None:
        need_mask(counted, student.shape[:-1])
        pair = student[counted], teacher[counted]
    loss = mean_over_counted(distance(*map(_precise, pair)), n_counted=n_counted)
    return need_finite(loss, counted, student_hidden=student, teacher_hidden=teacher)


def _squares(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean(-1)


def _one_minus_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def softened(logits: Tensor, temperature: float) -> Tensor:
    """logits / T in float32 at least; at T = 1 no copy is made."""
    need_temperature(temperature)
    logits = _precise(logits)
    return logits if temperature == 1 else logits / temperature


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
