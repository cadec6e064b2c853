"""Notebook 00, Start here: how often do teacher and student give the same answer?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from course_utils.classroom.checks import exercise


def _cases() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of logits (N, C); no number is the same in both, even where the classes agree."""
    teacher = np.array([[2.0, 0.5, -1.0], [0.1, 1.5, 0.3], [-0.2, 0.4, 3.0], [1.2, 1.0, 0.7]])
    student = np.array([[1.5, 0.2, -0.7], [0.4, 0.9, 0.8], [0.6, 2.1, 1.1], [0.3, 1.4, 0.5]])
    yield teacher, student  # 2 of 4 agree
    yield teacher, 0.5 * teacher + 0.05  # another scale, the same classes: all agree
    yield teacher, -teacher - 0.05  # the last is first: none agree
    generator = np.random.default_rng(0)
    for texts, classes in ((8, 8), (50, 4), (40, 2)):
        teacher = generator.normal(size=(texts, classes))
        yield teacher, teacher + generator.normal(size=(texts, classes))


@exercise(
    cases=_cases,
    hints=(
        "A model's answer for a text is the class with the largest logit. "
        "Find the answers of both models first, then compare the answers.",
        "Each row holds the logits of one text, so `teacher_logits.argmax(axis=1)` gives one class "
        "per text. `==` then compares two arrays of classes text by text.",
        "The mean of True and False is the share of True: the last step is `.mean()`.",
    ),
)
def agreement(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """The share of texts, from 0 to 1, for which both models give the same class.

    Both arguments are logits (N, C): one row per text, one column per class.
    """
    return float((teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)).mean())


@agreement.mistake(
    "You compare the logits themselves (or the largest ones), and two models almost never give the "
    "same number. "
    "Compare the classes they choose: the position of the largest logit in each row."
)
def compares_logits(teacher_logits, student_logits):
    return (teacher_logits == student_logits).mean()


@agreement.mistake(
    "Your argmax runs down the columns (axis 0): it finds a text for each class. "
    "Each row is one text; look for its largest logit along the row, axis 1."
)
def argmax_down_the_columns(teacher_logits, student_logits):
    return (teacher_logits.argmax(axis=0) == student_logits.argmax(axis=0)).mean()


@agreement.mistake(
    "Your argmax has no axis, so it finds one largest logit in the whole table. "
    "Every text needs a class of its own: argmax(axis=1)."
)
def argmax_of_the_whole_table(teacher_logits, student_logits):
    return np.mean(teacher_logits.argmax() == student_logits.argmax())


@agreement.mistake(
    "You return one True or False per text: the comparison is right, and its mean is the share."
)
def one_answer_per_text(teacher_logits, student_logits):
    return teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)


@agreement.mistake(
    "You count the texts on which the models agree. "
    "A share does not grow with the number of texts: divide by it."
)
def counts(teacher_logits, student_logits):
    return (teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)).sum()


@agreement.mistake(
    "You return a percentage, from 0 to 100. A share goes from 0 to 1: leave out the factor 100."
)
def percentage(teacher_logits, student_logits):
    return 100 * (teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)).mean()


@agreement.mistake(
    "You measure disagreement: the share of texts on which the classes differ. Turn != into ==."
)
def disagreement(teacher_logits, student_logits):
    return (teacher_logits.argmax(axis=1) != student_logits.argmax(axis=1)).mean()


@agreement.mistake(
    "You divide the number of agreements by the number of classes. "
    "It is a share of the texts: divide by the number of rows, shape[0]."
)
def divides_by_the_classes(teacher_logits, student_logits):
    agree = teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)
    return agree.sum() / teacher_logits.shape[1]


@agreement.mistake(
    "You divide by the number of logits, texts times classes. There is one answer per text: "
    "divide by the number of rows, shape[0]."
)
def divides_by_all_logits(teacher_logits, student_logits):
    agree = teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)
    return agree.sum() / teacher_logits.size


@agreement.mistake(
    "You look at classes 0 and 1 only. That is enough for a task with two classes; "
    "with more of them, take the argmax over all columns."
)
def first_two_classes_only(teacher_logits, student_logits):
    return (
        (teacher_logits[:, 1] > teacher_logits[:, 0])
        == (student_logits[:, 1] > student_logits[:, 0])
    ).mean()


@agreement.mistake(
    "You round probabilities before comparing them. A text on which no class reaches one half then "
    "has no answer at all: compare the argmax, which always has one."
)
def rounds_probabilities(teacher_logits, student_logits):
    rounded = [
        np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
        for logits in (teacher_logits, student_logits)
    ]
    return (rounded[0] == rounded[1]).all(axis=1).mean()
