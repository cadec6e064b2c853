"""Notebook 03, The distillation loss: temperature, KL, T², means, the mix, cosine, ten suspects."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.classroom.checks import Exercise, Verdict, exercise
from course_utils.classroom.fault_trials import CONFUSIONS, TRIALS, explain
from course_utils.classroom.faults import FAULTS, LOSSES, NO_FAULT
from course_utils.classroom.outcomes import Outcome


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _add_slips(
    exercise: Exercise,
    function: Callable,
    slips: Mapping[str, tuple[str, Mapping[str, Any]]],
    also: Mapping[str, tuple[str, Mapping[str, Any]]],
) -> None:
    """Nothing; adds each slip, each of `also`, and each pair of one and the other.

    A slip is a sentence and the options with which `function` makes it.
    """
    right: dict[str, tuple[str, Mapping[str, Any]]] = {"": ("", {})}
    for first, (why, options) in (right | slips).items():
        for second, (more, further) in (right | also).items():
            if first or second:
                slip = functools.partial(function, **{**options, **further})
                slip.__name__ = "_and_".join(filter(None, (first, second)))
                exercise.mistake(" And one thing more. ".join(filter(None, (why, more))))(slip)


# A softmax with temperature


def _logit_cases() -> Iterator[tuple[Tensor, float]]:
    yield torch.tensor([2.0, 1.0, -1.0]), 2.0
    yield torch.tensor([[3.0, 0.0], [1.0, 2.0], [0.0, 0.0]]), 0.5
    yield _normal(2, 3, 5), 4.0
    yield torch.tensor([[1000.0, 999.0, 990.0], [0.0, 1.0, 2.0], [-800.0, -802.0, -801.0]]), 2.0


def _soften(
    logits: Tensor,
    temperature: float,
    *,
    scale: Callable[[Tensor, float], Tensor] = torch.div,
    largest: Callable[[Tensor, int], Tensor | float] = lambda z, dim: z.amax(dim, keepdim=True),
    dim: int = -1,
    then: Callable[[Tensor, float], Tensor] = lambda probs, temperature: probs,
) -> Tensor:
    """The softmax at a temperature, right by default; each option is a place to go wrong."""
    scaled = scale(logits, temperature)
    exponentials = (scaled - largest(scaled, dim)).exp()
    return then(exponentials / exponentials.sum(dim, keepdim=True), temperature)


@exercise(
    cases=_logit_cases,
    tolerance=1e-5,
    hints=(
        "Three steps: divide the logits by T; make all of them positive with exp; divide by their "
        "sum, row by row.",
        "exp(1000) is infinite, and ∞/∞ is not a number. Adding the same number to all logits of a "
        "row changes nothing in the end. Which number makes the largest of them 0?",
        "`scaled = logits / temperature`, then `scaled - scaled.max(-1, keepdim=True).values`, "
        "then exp, then divide by `.sum(-1, keepdim=True)`. Or `torch.softmax`, which does it.",
    ),
)
def soften(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities (..., C) of logits (..., C) at a temperature, for logits of any size."""
    return (logits / temperature).softmax(-1)


_OVERFLOWS = (
    "With logits around 1000 your exp is infinite (or, around -800, everything is 0), and the "
    "result is not a number. Subtract each row's largest value before exp."
)
_NOTHING_OFF = {"largest": lambda z, dim: 0.0}
_WRONG_AXIS = (
    "Your sums run over the first axis, so a *class* adds up to 1 over the texts. Each text shares "
    "out its own probability: the last axis, dim=-1."
)
_add_slips(
    soften,
    _soften,
    {
        "multiplies_by_t": (
            "You multiply by T; logits are *divided* by T. A high temperature makes the "
            "probabilities more even, and yours become sharper.",
            {"scale": torch.mul},
        ),
        "temperature_not_used": (
            "The temperature is not used: this is the softmax at T = 1.",
            {"scale": lambda logits, temperature: logits},
        ),
        "divides_the_probabilities": (
            "You divide the probabilities by T, after the softmax. They no longer add up to 1, and "
            "their ratios are what they were. T divides the *logits*.",
            {
                "scale": lambda logits, temperature: logits,
                "then": lambda probs, temperature: probs / temperature,
            },
        ),
        "returns_the_logs": (
            "You return log-probs. They are what a loss is made of; here the probabilities "
            "themselves are wanted.",
            {"then": lambda probs, temperature: probs.log()},
        ),
    },
    {
        "overflows": (_OVERFLOWS, _NOTHING_OFF),
        "one_largest_for_all": (
            "You subtract the largest value of the whole tensor. A row that lies far below it "
            "becomes all zeros and then 0/0. Subtract each row's own: "
            "`.max(-1, keepdim=True).values`.",
            {"largest": lambda z, dim: z.max()},
        ),
    },
)
_add_slips(
    soften,
    _soften,
    {
        "softmax_over_the_wrong_axis": (_WRONG_AXIS, {"dim": 0}),
        "softmax_over_the_wrong_axis_and_overflows": (
            f"{_WRONG_AXIS} And one thing more. {_OVERFLOWS}",
            {"dim": 0, **_NOTHING_OFF},
        ),
    },
    {},
)


@soften.mistake(
    "You take a sigmoid of each logit on its own. Its values do not add up to 1: that is for "
    "labels of which several may be true at once. One class of several is a softmax."
)
def sigmoid_per_class(logits, temperature):
    return (logits / temperature).sigmoid()


# KL by hand


def _two_distributions() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.2, 0.3, 0.5])
    yield torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    yield _normal(4, 5).softmax(-1), _normal(4, 5, seed=1).softmax(-1)
    yield torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]]), torch.full((2, 3), 1 / 3)


def _terms(p: Tensor, q: Tensor, *, guard: bool = True, log: Callable = torch.log) -> Tensor:
    """p log(p/q) of each class; with `guard`, 0 where p is 0."""
    terms = p * (log(p) - log(q))
    return torch.where(p > 0, terms, 0.0) if guard else terms


def _kl(
    p: Tensor,
    q: Tensor,
    *,
    sum_up: Callable[[Tensor], Tensor] = lambda terms: terms.sum(-1),
    guard: bool = True,
    log: Callable = torch.log,
) -> Tensor:
    """KL(p‖q), right by default; each option is a place to go wrong."""
    return sum_up(_terms(p, q, guard=guard, log=log))


@exercise(
    cases=_two_distributions,
    tolerance=1e-5,
    hints=(
        "For each class: how much does the teacher believe in it, times the log of how much more "
        "than the student. Then add up the classes.",
        "`(p * (p / q).log()).sum(-1)` is it, but for one thing: a p of 0.",
        "0 · log 0 is 0 by convention (x log x goes to 0), and NaN in floating point. "
        "`torch.xlogy(p, p)` knows the convention; or `torch.where(p > 0, …, 0.0)`.",
    ),
)
def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) in nats, (...), of probabilities (..., C): p may hold zeros, q is above 0."""
    return (torch.xlogy(p, p) - p * q.log()).sum(-1)


_add_slips(
    kl_divergence,
    _kl,
    {
        "base_two": (
            "Your unit is bits: log2. In this course, as in PyTorch, the log is the natural one "
            "and the unit nats. (1 bit is ln 2 = 0.693 nats.)",
            {"log": torch.log2},
        ),
        "sign_lost": (
            "The sign is wrong. KL is never negative: p log(p/q), or p (log p − log q).",
            {"sum_up": lambda terms: -terms.sum(-1)},
        ),
        "mean_over_classes": (
            "You take the mean over the classes. KL is a *sum* over them: p already holds the "
            "weights of an average.",
            {"sum_up": lambda terms: terms.mean(-1)},
        ),
        "one_number_for_all": (
            "You add up everything into one number. One KL per row is wanted: sum over the last "
            "axis, dim=-1.",
            {"sum_up": lambda terms: terms.sum()},
        ),
    },
    {
        "nan_where_p_is_zero": (
            "Where p is 0 you compute 0 · log 0, which is NaN in floating point, and 0 by "
            "convention. `torch.xlogy(p, p)`, or torch.where.",
            {"guard": False},
        ),
    },
)


@kl_divergence.mistake(
    "This is KL(q‖p): the roles are swapped. The first of the two, p, is the one that weighs: "
    "p log(p/q)."
)
def the_wrong_way_round(p, q):
    return _terms(q, p).sum(-1)


@kl_divergence.mistake(
    "This is the cross-entropy, −Σ p log q. The KL is what is left of it when p's own entropy is "
    "taken off: it is 0 where both agree."
)
def cross_entropy_instead(p, q):
    return -(p * q.log()).sum(-1)


@kl_divergence.mistake(
    "F.kl_div expects *log*-probs first and probabilities second, and the target is the second: "
    "KL(p‖q) is `F.kl_div(q.log(), p, reduction=…)`."
)
def kl_div_of_probabilities(p, q):
    return F.kl_div(p, q, reduction="none").sum(-1)


@kl_divergence.mistake(
    "F.kl_div expects *log*-probs first. You gave it q itself: `F.kl_div(q.log(), p, reduction=…)`."
)
def kl_div_without_log(p, q):
    return F.kl_div(q, p, reduction="none").sum(-1)


# The soft loss


def _pairs_with_t() -> Iterator[tuple[Tensor, Tensor, float]]:
    yield torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[1.0, 3.0, 0.0]]), 2.0
    yield _normal(4, 5, seed=2), _normal(4, 5, seed=3), 4.0
    yield _normal(3, 8, seed=4), _normal(3, 8, seed=5), 1.5
    yield torch.tensor([[0.0, 3.0, -400.0]]), torch.tensor([[1.0, 0.0, -400.0]]), 3.0


def _careful(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


def _careless(logits: Tensor) -> Tensor:
    return logits.softmax(-1).log()


def _soft(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    student_t: Callable[[float], float] = lambda t: t,
    teacher_t: Callable[[float], float] = lambda t: t,
    factor: Callable[[float], float] = lambda t: t * t,
    turned: bool = False,
    entropy: bool = False,
    reduce: Callable[[Tensor], Tensor] = lambda terms: terms.sum(-1).mean(),
    logs: Callable[[Tensor], Tensor] = _careful,
) -> Tensor:
    """T² KL(teacher‖student), right by default; each option is a place to go wrong."""
    log_q = logs(student_logits / student_t(temperature))
    log_p = logs(teacher_logits / teacher_t(temperature))
    if turned:
        log_p, log_q = log_q, log_p
    terms = log_p.exp() * (-log_q if entropy else log_p - log_q)
    return factor(temperature) * reduce(terms)


@exercise(
    cases=_pairs_with_t,
    tolerance=1e-4,
    hints=(
        "Both sets of logits are divided by T. From the student we need log-probs, from the "
        "teacher probabilities (or their logs, too).",
        '`F.kl_div(log_q, p, reduction="batchmean")` is the mean over texts of KL(p‖q), if log_q '
        "are the student's log-probs and p the teacher's probabilities. Take F.log_softmax; the "
        "log of a softmax can be the log of 0.",
        "What is missing then is a factor, and the section above says which: the gradient has "
        "shrunk twice.",
    ),
)
def soft_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher‖student) at temperature T, the mean over N texts; logits are (N, C)."""
    return _soft(student_logits, teacher_logits, temperature)


_SOFT_SLIPS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "no_t_squared": (
        "The factor T² is missing. The gradient of the KL shrinks like 1/T²; without the factor, "
        "the soft loss fades out of the mix as T grows.",
        {"factor": lambda t: 1.0},
    ),
    "times_t": (
        "You multiply by T; it must be T². One T comes from the chain rule (the logits are divided "
        "by T), the other from the probabilities, which move together as T grows.",
        {"factor": lambda t: t},
    ),
    "divided_by_t_squared": (
        "You divide by T². The gradient has *shrunk* like 1/T², so multiply.",
        {"factor": lambda t: 1 / (t * t)},
    ),
    "teacher_not_softened": (
        "The teacher's logits are not divided by T. Then a student with the teacher's very logits "
        "has a loss and a gradient: T belongs on both sides.",
        {"teacher_t": lambda t: 1.0},
    ),
    "student_not_softened": (
        "The student's logits are not divided by T. Then a student with the teacher's very logits "
        "has a loss and a gradient: T belongs on both sides.",
        {"student_t": lambda t: 1.0},
    ),
    "no_temperature": (
        "No logits are divided by T. The factor alone only makes the loss larger.",
        {"student_t": lambda t: 1.0, "teacher_t": lambda t: 1.0},
    ),
    "the_wrong_way_round": (
        "This is KL(student‖teacher). The usual one is KL(teacher‖student): the teacher weighs. In "
        "F.kl_div the *student's* log-probs come first and the teacher is the target.",
        {"turned": True},
    ),
    "cross_entropy_instead": (
        "This is T² times the cross-entropy. Its gradient is the same, its value is not: it does "
        "not become 0 for a perfect student, as the teacher's entropy is still in it.",
        {"entropy": True},
    ),
}
_MEAN_SLIPS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "mean_over_classes": (
        'You take the mean over classes as well as texts, as reduction="mean" does. With 30 522 '
        "classes the loss would all but vanish. Sum over classes, mean over texts: "
        '"batchmean", or .sum(-1).mean().',
        {"reduce": lambda terms: terms.mean()},
    ),
    "sum_over_texts": (
        "You add up the texts. Then the loss and its gradient grow with the batch: take the mean.",
        {"reduce": lambda terms: terms.sum()},
    ),
    "one_value_per_text": (
        "You return one value per text. The mean over the texts is wanted, one number.",
        {"reduce": lambda terms: terms.sum(-1)},
    ),
    "log_of_a_softmax": (
        "You take the log of a softmax. Where a class is so improbable that its probability is "
        "rounded to 0, that is −∞, and the loss is no number. F.log_softmax does both at once.",
        {"logs": _careless},
    ),
}
_add_slips(soft_loss, _soft, _SOFT_SLIPS, _MEAN_SLIPS)


@soft_loss.mistake(
    "F.kl_div expects *log*-probs as its first argument, and you gave it probabilities. It does "
    "not complain; the number means nothing. Use F.log_softmax for the student."
)
def probabilities_where_logs_belong(student_logits, teacher_logits, temperature):
    q, p = ((z / temperature).softmax(-1) for z in (student_logits, teacher_logits))
    return temperature**2 * F.kl_div(q, p, reduction="batchmean")


@soft_loss.mistake(
    "A softmax twice: F.cross_entropy applies log_softmax itself, so it wants the student's logits "
    "(divided by T), not probabilities. And it gives the cross-entropy; the KL is wanted."
)
def softmax_twice(student_logits, teacher_logits, temperature):
    q, p = ((z / temperature).softmax(-1) for z in (student_logits, teacher_logits))
    return temperature**2 * F.cross_entropy(q, p)


# The mean over counted positions


def _positions() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.tensor([[1.0, 2.0, 3.0, 9.0]]), torch.tensor([[True, True, True, False]])
    lengths = torch.tensor([[5], [2], [1]])
    yield _normal(3, 5, seed=6).abs(), torch.arange(5) < lengths
    yield torch.tensor([[0.5, math.inf], [2.0, 0.25]]), torch.tensor([[1, 0], [1, 1]]).bool()
    yield torch.tensor([[4.0, 1.0], [3.0, 2.0]]), torch.zeros(2, 2, dtype=torch.bool)


def _mean(
    losses: Tensor,
    counted: Tensor,
    *,
    choose: Callable[[Tensor, Tensor], Tensor] = lambda losses, counted: losses.where(counted, 0.0),
    number: Callable[[Tensor], Tensor | int] = lambda counted: counted.sum(),
    guard: bool = True,
) -> Tensor:
    divisor = torch.as_tensor(number(counted), dtype=losses.dtype)
    return choose(losses, counted).sum() / (divisor.clamp(min=1) if guard else divisor)


@exercise(
    cases=_positions,
    hints=(
        "A sum over the positions that count, divided by how many they are.",
        "`losses[counted]` are the positions that count, in one row. Multiplying by the mask is "
        "not the same: what is 0 · ∞?",
        "The mean of nothing is 0/0. Divide by `counted.sum().clamp(min=1)`.",
    ),
)
def counted_mean(losses: Tensor, counted: Tensor) -> Tensor:
    """The mean of losses (B, S) over positions where `counted` is True; 0 if there is none."""
    return losses[counted].sum() / counted.sum().clamp(min=1)


_add_slips(
    counted_mean,
    _mean,
    {
        "divided_by_all_positions": (
            "You add up what counts and divide by *all* positions, padding included. Then more "
            "padding makes the loss smaller. Divide by counted.sum().",
            {"number": lambda counted: counted.numel()},
        ),
        "divided_by_texts": (
            "You divide by the number of texts, so long texts weigh more. Divide by the number of "
            "counted positions.",
            {"number": lambda counted: len(counted)},
        ),
        "not_divided": (
            "The sum is right, and it is not divided by anything. The loss would grow with the "
            "batch.",
            {"number": lambda counted: 1},
        ),
        "the_wrong_positions": (
            "You count the positions that should *not* count: `counted` is True where the loss "
            "looks.",
            {
                "choose": lambda losses, counted: losses.where(~counted, 0.0),
                "number": lambda counted: (~counted).sum(),
            },
        ),
    },
    {
        "infinity_times_zero": (
            "You multiply by the mask. Where the loss of a position that does not count is "
            "infinite, that is ∞ · 0 = NaN. Select instead: losses[counted].",
            {"choose": lambda losses, counted: losses * counted},
        ),
    },
)
_add_slips(
    counted_mean,
    _mean,
    {},
    {
        "mean_of_nothing": (
            "Where no position counts you divide 0 by 0. One such batch, and the weights are NaN. "
            "Return 0: `.clamp(min=1)` on the divisor.",
            {"guard": False},
        ),
        "infinity_times_zero_and_mean_of_nothing": (
            "You multiply by the mask: ∞ · 0 is NaN, so select with losses[counted]. And where no "
            "position counts you divide 0 by 0; return 0 there, with `.clamp(min=1)` on the "
            "divisor.",
            {"choose": lambda losses, counted: losses * counted, "guard": False},
        ),
    },
)


@counted_mean.mistake(
    "Every position counts, padding included: `counted` is not used. The loss then depends on how "
    "the batch was padded."
)
def padding_counted(losses, counted):
    return losses.mean()


@counted_mean.mistake(
    "You take the mean of each text first and then the mean of these. So a token of a short text "
    "weighs more than one of a long text, and the loss changes when a batch is split. One sum, one "
    "number of positions."
)
def mean_of_means(losses, counted):
    means = losses.where(counted, 0.0).sum(1) / counted.sum(1).clamp(min=1)
    return means.mean()


# Hard and soft, mixed


def _mixes() -> Iterator[tuple[Tensor, Tensor, Tensor, float, float]]:
    yield (
        torch.tensor([[2.0, 0.0, 1.0]]),
        torch.tensor([[0.0, 2.0, 1.0]]),
        torch.tensor([2]),
        0.3,
        2.0,
    )
    yield _normal(4, 5, seed=7), _normal(4, 5, seed=8), torch.tensor([0, 4, 2, 2]), 0.1, 4.0
    yield _normal(6, 3, seed=9), _normal(6, 3, seed=10), torch.tensor([1, 1, 0, 2, 0, 1]), 0.75, 1.5


def _mix(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float,
    temperature: float,
    *,
    weights: Callable[[float], tuple[float, float]] = lambda alpha: (alpha, 1 - alpha),
    hard: Callable[[Tensor, float], Tensor] = lambda logits, temperature: logits,
    labelled_by_teacher: bool = False,
    on_all: bool = False,
    **soft: Any,
) -> Tensor:
    labels = teacher_logits.argmax(-1) if labelled_by_teacher else labels
    hard_loss = F.cross_entropy(hard(student_logits, temperature), labels)
    if on_all:
        hard_loss = temperature**2 * hard_loss
    of_hard, of_soft = weights(alpha)
    return of_hard * hard_loss + of_soft * _soft(
        student_logits, teacher_logits, temperature, **soft
    )


@exercise(
    cases=_mixes,
    tolerance=1e-4,
    hints=(
        "Two losses, two weights: alpha for the hard one, 1 − alpha for the soft one.",
        "The hard loss is the ordinary one: `F.cross_entropy(student_logits, labels)`, at T = 1, "
        "because that is how the student will be used.",
        "The soft loss is your `soft_loss`, T² included: the factor belongs to it alone.",
    ),
)
def mixed_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float,
    temperature: float,
) -> Tensor:
    """alpha · hard + (1 − alpha) · soft, a mean over N texts; logits (N, C), labels (N,)."""
    return _mix(student_logits, teacher_logits, labels, alpha, temperature)


_add_slips(
    mixed_loss,
    _mix,
    {
        "alpha_on_the_soft_loss": (
            "Your alpha weighs the soft loss. Both habits exist; in this course alpha is the "
            "weight of the *hard* one.",
            {"weights": lambda alpha: (1 - alpha, alpha)},
        ),
        "soft_loss_at_full_weight": (
            "Your weights are alpha and 1; they are to be alpha and 1 − alpha, so that they add up "
            "to 1.",
            {"weights": lambda alpha: (alpha, 1.0)},
        ),
        "hard_loss_at_full_weight": (
            "Your weights are 1 and 1 − alpha; the hard loss is to have the weight alpha.",
            {"weights": lambda alpha: (1.0, 1 - alpha)},
        ),
        "not_weighted": (
            "You add the two losses as they are: alpha is not used.",
            {"weights": lambda alpha: (1.0, 1.0)},
        ),
        "softened_hard_loss": (
            "Your hard loss is taken at temperature T. It belongs at T = 1: labels are not "
            "softened, and the student will be used at 1.",
            {"hard": torch.div},
        ),
        "softmax_twice": (
            "You hand probabilities to F.cross_entropy, which takes logits and applies the softmax "
            "itself. Softmax twice: even a student that is sure and right keeps a loss.",
            {"hard": lambda logits, temperature: logits.softmax(-1)},
        ),
        "t_squared_on_both": (
            "T² multiplies both losses. It belongs to the soft one, whose gradient T has shrunk; "
            "the hard loss has never seen T.",
            {"on_all": True},
        ),
        "the_teachers_labels": (
            "Your hard loss is taken against the teacher's first choice. A hard target can be "
            "that, but `labels` are given: the truth, where the teacher may be wrong.",
            {"labelled_by_teacher": True},
        ),
    },
    {
        name: _SOFT_SLIPS[name]
        for name in (
            "no_t_squared",
            "teacher_not_softened",
            "the_wrong_way_round",
            "cross_entropy_instead",
        )
    }
    | {"mean_over_classes": _MEAN_SLIPS["mean_over_classes"]},
)


# Cosine


def _hidden_states() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    yield (
        torch.tensor([[[1.0, 0.0], [1.0, 1.0], [5.0, 5.0]]]),
        torch.tensor([[[0.0, 2.0], [3.0, 0.0], [-1.0, 4.0]]]),
        torch.tensor([[1, 1, 0]]),
    )
    yield _normal(1, 3, 4, seed=11), _normal(1, 3, 4, seed=12), torch.tensor([[1, 1, 1]])
    mask = (torch.arange(6) < torch.tensor([[6], [2], [3]])).long()
    yield _normal(3, 6, 8, seed=13), _normal(3, 6, 8, seed=14), mask


def _cosines(student: Tensor, teacher: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def _cosine(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    attention_mask: Tensor,
    *,
    per_token: Callable[[Tensor, Tensor], Tensor] = _cosines,
    reduce: Callable[[Tensor, Tensor], Tensor] = lambda losses, mask: losses[mask].mean(),
) -> Tensor:
    return reduce(per_token(student_hidden, teacher_hidden), attention_mask.bool())


@exercise(
    cases=_hidden_states,
    tolerance=1e-5,
    hints=(
        "For every token, how far the two vectors point apart: 1 − cos. Then the mean over the "
        "tokens that are none of the padding.",
        "The cosine is the dot product divided by both lengths. F.cosine_similarity has it, and "
        "asks for the axis of the vector's numbers: dim=-1.",
        "`(1 - cosines)[attention_mask.bool()].mean()`.",
    ),
)
def cosine_loss(student_hidden: Tensor, teacher_hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of 1 − cos over real tokens; hidden states (B, S, H), attention_mask (B, S)."""
    return _cosine(student_hidden, teacher_hidden, attention_mask)


_add_slips(
    cosine_loss,
    _cosine,
    {
        "likeness_not_distance": (
            "You return the cosine itself, which is 1 where both agree. A loss is to *fall* as "
            "they come together: 1 − cos.",
            {"per_token": lambda s, t: F.cosine_similarity(s, t, dim=-1)},
        ),
        "sign_turned": (
            "You return −cos. Its gradient is right; but a loss of −1 for a perfect student is "
            "hard to read, and the usual form is 1 − cos, which is 0 there.",
            {"per_token": lambda s, t: -F.cosine_similarity(s, t, dim=-1)},
        ),
        "lengths_not_divided_out": (
            "You take the dot product, without dividing by the two lengths. Then a student makes "
            "the loss smaller by making its vectors longer.",
            {"per_token": lambda s, t: 1 - (s * t).sum(-1)},
        ),
        "squared_distance": (
            "This is the squared distance. It sees lengths as well as directions; the cosine sees "
            "directions alone.",
            {"per_token": lambda s, t: (s - t).square().mean(-1)},
        ),
    },
    {
        "padding_counted": (
            "Padding is counted: the mask is not used, so the loss depends on how the batch was "
            "padded.",
            {"reduce": lambda losses, mask: losses.mean()},
        ),
        "divided_by_all_tokens": (
            "You hide the padding, and divide by all positions anyway. Divide by the number of "
            "real tokens, mask.sum().",
            {"reduce": lambda losses, mask: (losses * mask).sum() / mask.numel()},
        ),
        "sum_over_tokens": (
            "You add up the tokens. Then the loss grows with the batch: take the mean.",
            {"reduce": lambda losses, mask: losses[mask].sum()},
        ),
        "mean_of_means": (
            "You take the mean of each text and then the mean of these, so a token of a short text "
            "weighs more. One mean over all real tokens.",
            {"reduce": lambda losses, mask: ((losses * mask).sum(1) / mask.sum(1)).mean()},
        ),
    },
)


@cosine_loss.mistake(
    "Your cosine runs along the tokens (dim=1): it compares how one *number* changes from token to "
    "token. A token's vector lies along the last axis: dim=-1."
)
def cosine_along_the_tokens(student_hidden, teacher_hidden, attention_mask):
    return (1 - F.cosine_similarity(student_hidden, teacher_hidden, dim=1)).mean()


@cosine_loss.mistake(
    "You make one long vector of all tokens and compare those. Then long vectors count more than "
    "short ones. One cosine per token, then the mean."
)
def one_cosine_for_all(student_hidden, teacher_hidden, attention_mask):
    mask = attention_mask.bool()
    return 1 - F.cosine_similarity(
        student_hidden[mask].ravel(), teacher_hidden[mask].ravel(), dim=0
    )


# Spot the fault


class Hunt(Exercise):
    """An exercise whose answers are names of faults: a wrong one is shown where it is refuted."""

    def _unknown_mistake(
        self, function: Callable, k: int, found: Outcome, expected: Outcome
    ) -> Verdict:
        """The verdict on the first loss that was misjudged, and how many were not."""
        letters = list(LOSSES)
        right = sum(a.matches(b, 0.0) for a, b in self._pairs(function))
        score = f"{right} of {len(letters)} are right."
        if found.is_stub() or isinstance(found.error, KeyError):
            return Verdict("wrong", f"{score} Still without an answer: loss {letters[k]}.")
        if found.error is not None:
            return super()._unknown_mistake(function, k, found, expected)
        return Verdict("wrong", f"{score} {explain(letters[k], found.value)}")

    def _pairs(self, function: Callable) -> Iterator[tuple[Outcome, Outcome]]:
        return zip(self._outcomes_of(function), self._outcomes_of(self.reference), strict=True)


def spot_the_fault(loss: str) -> str:
    """What is wrong with loss "A" … "J": the name of a fault, or "nothing"."""
    return FAULTS[loss]


spot_the_fault = Hunt(
    spot_the_fault,
    cases=lambda: [(letter,) for letter in LOSSES],
    hints=(
        f"Choose among: {', '.join([NO_FAULT, *TRIALS])}. Each is the answer once, and "
        f"“{NO_FAULT}” twice.",
        "Read each loss against the formula, line by line: is the teacher frozen, are the logits "
        "left as they are, where does T divide, what is the target, what is summed and what is "
        "averaged, over which tokens, and which factor stands in front?",
        "Two have no fault, and two look odd: one of them has no KL in it, the other takes logs on "
        "both sides. What do odd lines change in the *gradient*?",
    ),
)


def _misjudge(letter: str, answer: str) -> Callable[[str], str]:
    def judged(loss: str) -> str:
        return answer if loss == letter else FAULTS[loss]

    words = "".join(c if c.isascii() and c.isalnum() else "_" for c in answer.replace("²", "2"))
    judged.__name__ = f"{letter.lower()}_is_not_{words.lower()}"
    return judged


def _add_confusions() -> None:
    for letter, fault in FAULTS.items():
        often = {said for about, said in CONFUSIONS if about == letter}
        for answer in sorted(often | ({NO_FAULT} - {fault})):
            spot_the_fault.mistake(explain(letter, answer))(_misjudge(letter, answer))


_add_confusions()
