"""What a loss refuses, in words: sizes that differ, settings out of range, no numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_utils.errors import CourseError, DataError, ModelError


class NotFiniteError(ModelError):
    """A model handed a NaN or an infinity to a loss; `what` says which model and which values."""


class DivergedError(CourseError):
    """A training whose loss is no longer a number."""


def need_same_classes(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Nothing; raises `ModelError` for other classes, `DataError` for other positions."""
    _need_same_shape(
        student_logits,
        teacher_logits,
        "classes",
        do="A soft loss goes class by class: take two models with the same labels or vocabulary.",
    )


def need_same_width(student_hidden: Tensor, teacher_hidden: Tensor) -> None:
    """Nothing; raises `ModelError` for other widths, `DataError` for other positions."""
    s, t = student_hidden.shape[-1], teacher_hidden.shape[-1]
    _need_same_shape(
        student_hidden,
        teacher_hidden,
        "numbers per hidden state",
        do=f"Bring the student's to the teacher's width first, with an nn.Linear({s}, {t}) "
        "that is trained along.",
    )


def need_positions(given: Tensor, shape: torch.Size, name: str) -> None:
    """Nothing; raises `DataError` unless `given` has one value for each position of `shape`."""
    if given.shape != shape:
        raise DataError(
            f"{name} has the shape {tuple(given.shape)}, the positions are {tuple(shape)}.",
            do=f"Give one value of {name} for each position.",
        )


def need_labels(labels: Tensor, logits: Tensor) -> None:
    """Nothing; raises `DataError` unless there is one whole number for each position."""
    need_positions(labels, logits.shape[:-1], "labels")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(
            f"The labels are of type {labels.dtype}; they are the numbers of classes.",
            do="Give torch.long. Soft labels are the teacher's logits, and go into a soft loss.",
        )


def need_binary_labels(labels: Tensor, logits: Tensor) -> None:
    """Nothing; raises `DataError` unless there is 0.0 or 1.0 per class, or a row of -100."""
    do = "Give a row per text: 1.0 where a class applies, else 0.0; without labels -100 in all."
    if labels.shape != logits.shape:
        raise DataError(
            f"labels has the shape {tuple(labels.shape)}, the logits {tuple(logits.shape)}.", do=do
        )
    if not labels.is_floating_point():
        raise DataError(f"The labels of several classes are of type {labels.dtype}.", do=do)
    good = (labels == 0) | (labels == 1) | (labels == -100).all(-1, keepdim=True)  # (..., C)
    if not good.all():
        first = tuple((~good).nonzero()[0].tolist())
        *position, entry = map(str, first)
        raise DataError(
            f"A label is {labels[first].item():g}, neither 0 nor 1.",
            where=f"first at position {', '.join(position)}, class {entry}",
            do=do,
        )


def need_mask(counted: Tensor, shape: torch.Size) -> None:
    """Nothing; raises `DataError` unless `counted` is true or false for each position."""
    need_positions(counted, shape, "counted")
    if counted.dtype != torch.bool:  # numbers would be taken for the indices of positions
        raise DataError(
            f"counted is a mask of {counted.dtype}, not of true and false.",
            do="Give attention_mask.bool(), or labels != -100.",
        )


def need_temperature(temperature: float) -> None:
    """Nothing; raises `DataError` unless the temperature is a finite number above 0."""
    if not 0 < temperature < math.inf:
        raise DataError(
            f"The temperature is {temperature}; logits are divided by it.",
            do="Take a finite number above 0. 1 leaves the logits as they are, 2 to 8 are usual.",
        )


def need_share(alpha: float) -> None:
    """Nothing; raises `DataError` unless alpha is from 0 to 1."""
    if not 0 <= alpha <= 1:
        raise DataError(
            f"alpha is {alpha}; it is the hard loss's share, and 1 - alpha the soft loss's.",
            do="Take a number from 0 (the teacher alone) to 1 (the labels alone).",
        )


def need_weights(**weights: float) -> None:
    """Nothing; raises `DataError` for a weight that is negative or not finite."""
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise DataError(
                f"The weight {name} is {weight}; a term would be driven up, not down.",
                do="Take 0 or more; 0 leaves the term out of the total.",
            )


def need_finite(
    loss: Tensor, counted: Tensor | None = None, *, first_row: int = 0, **values: Tensor
) -> Tensor:
    """`loss`; raises `NotFiniteError` if it is not finite because a counted value is not.

    The values are looked at only then, so that a good loss costs nothing. They are (..., C) with
    the positions of `counted`, rows numbered from `first_row`; their names say whose they are:
    `student_logits`.
    """
    if torch.isfinite(loss):
        return loss
    for name, tensor in values.items():
        bad = ~tensor.isfinite()  # (..., C)
        if counted is not None:
            bad &= counted.unsqueeze(-1)
        if bad.any():
            whose, what = name.split("_")
            first = tuple(bad.nonzero()[0].tolist())
            position = (first[0] + first_row, *first[1:-1])
            raise NotFiniteError(
                f"The {whose}'s {what} hold {tensor[first].item()}.",
                where=f"first at position {', '.join(map(str, position))}, entry {first[-1]}",
                do="If they do from the start, look at that model's weights and inputs; if it came "
                "with training, take a smaller learning rate.",
            )
    return loss


def need_dev(dev_labels: Tensor | None, patience: int | None) -> None:
    """Nothing; raises `DataError` for texts without labels to measure on, or none to wait for."""
    if patience is not None and dev_labels is None:
        raise DataError(
            f"patience is {patience}, but there are no texts to measure the progress on.",
            do="Give dev=…, texts with labels that the training does not see.",
        )
    if patience is not None and patience < 1:
        raise DataError(
            f"patience is {patience}; it counts the epochs without a better score.",
            do="Take a whole number from 1.",
        )
    if dev_labels is not None and not (dev_labels != -100).any():
        raise DataError(
            f"None of the {len(dev_labels)} dev texts has a label.",
            do="Give dev texts with labels, or leave dev out.",
        )


def _need_same_shape(student: Tensor, teacher: Tensor, unit: str, *, do: str) -> None:
    if student.shape == teacher.shape:
        return
    s, t = student.shape[-1:], teacher.shape[-1:]
    if s != t:
        raise ModelError(f"The student has {s[0]} {unit}, the teacher {t[0]}.", do=do)
    raise DataError(
        f"The student's {unit} are given for positions {tuple(student.shape[:-1])}, "
        f"the teacher's for {tuple(teacher.shape[:-1])}.",
        do="Give both models the same batch, and select the same positions of both.",
    )
