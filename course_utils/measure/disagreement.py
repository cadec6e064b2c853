"""Where teacher and student choose differently: texts to read, and counts to compare the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from scipy.stats import binomtest

from course_utils.errors import DataError
from course_utils.measure.calibration import need_labels


@dataclass(frozen=True)
class Disagreement:
    """A text, what it is, and what each of the two says, with the probability each gives to it."""

    text: str
    label: str
    teacher: str
    student: str
    teacher_prob: float
    student_prob: float

    @property
    def right(self) -> str:
        """Who is: "teacher", "student" or "neither"."""
        return {self.teacher: "teacher", self.student: "student"}.get(self.label, "neither")


def disagreements(
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    teacher_logits: np.ndarray,
    student_logits: np.ndarray,
    names: Sequence[str],
    n: int = 20,
) -> list[Disagreement]:
    """At most `n` texts that the two put in different classes, the most confident pair first.

    Logits are (N, C), labels (N,), `names` those of the C classes. Confidence is the sum of both
    probabilities. Each pair of classes (the teacher's, the student's) gives its most confident text
    before any gives its second. Raises `DataError` when sizes differ or a label is no class.
    """
    labels, teacher, student = _checked(labels, teacher_logits, student_logits)
    if len(texts) != len(labels) or len(names) != teacher.shape[1]:
        raise DataError(
            f"There are {len(texts)} texts and {len(names)} names; logits are {teacher.shape}.",
            do="Give one text for each row of the logits, and one name for each class.",
        )
    chosen = teacher.argmax(1), student.argmax(1)  # (N,) each
    probs = softmax(teacher, axis=1).max(1), softmax(student, axis=1).max(1)
    confidence = probs[0] + probs[1]
    different = np.flatnonzero(chosen[0] != chosen[1])
    by_confidence = different[np.argsort(-confidence[different], kind="stable")]
    seen: Counter[tuple[int, int]] = Counter()
    turn = {}  # in which a text comes: how many of its pair are more confident
    for i in by_confidence.tolist():
        pair = int(chosen[0][i]), int(chosen[1][i])
        turn[i] = seen[pair]
        seen[pair] += 1
    taken = sorted(turn, key=turn.__getitem__)[:n]  # stable: in a turn the most confident first
    return [
        Disagreement(
            text=texts[i],
            label=names[labels[i]],
            teacher=names[chosen[0][i]],
            student=names[chosen[1][i]],
            teacher_prob=float(probs[0][i]),
            student_prob=float(probs[1][i]),
        )
        for i in sorted(taken, key=lambda i: -confidence[i])
    ]


def outcome_table(
    labels: Sequence[int] | np.ndarray, teacher_logits: np.ndarray, student_logits: np.ndarray
) -> dict[str, int | float]:
    """`both_right`, `only_teacher`, `only_student`, `both_wrong_same`, `both_wrong_different`, `p`.

    Five counts of texts and the p-value of McNemar's exact test: how often chance would divide the
    texts that one alone gets right at least as unevenly, were both right equally often (McNemar
    1947; exact, with the binomial distribution). Logits are (N, C), labels (N,). Raises `DataError`
    when sizes differ or a label is no class.
    """
    labels, teacher, student = _checked(labels, teacher_logits, student_logits)
    theirs, ours = teacher.argmax(1), student.argmax(1)
    teacher_right, student_right = theirs == labels, ours == labels
    both_wrong = ~teacher_right & ~student_right
    only_teacher = int((teacher_right & ~student_right).sum())
    only_student = int((student_right & ~teacher_right).sum())
    one_right = only_teacher + only_student
    return {
        "both_right": int((teacher_right & student_right).sum()),
        "only_teacher": only_teacher,
        "only_student": only_student,
        "both_wrong_same": int((both_wrong & (theirs == ours)).sum()),
        "both_wrong_different": int((both_wrong & (theirs != ours)).sum()),
        "p": float(binomtest(only_teacher, one_right).pvalue) if one_right else 1.0,
    }


def _checked(
    labels: Sequence[int] | np.ndarray, teacher_logits: np.ndarray, student_logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All three as arrays; logits in double precision."""
    labels = np.asarray(labels)
    teacher, student = (np.asarray(each, np.float64) for each in (teacher_logits, student_logits))
    if teacher.ndim != 2 or teacher.shape != student.shape:
        raise DataError(
            f"The teacher's logits are {teacher.shape}, the student's {student.shape}.",
            do="Compute both on the same texts, for the same classes.",
        )
    if not (np.isfinite(teacher).all() and np.isfinite(student).all()):
        raise DataError("A logit is not a finite number.", do="Look for a training that diverged.")
    need_labels(labels, *teacher.shape)
    return labels, teacher, student
