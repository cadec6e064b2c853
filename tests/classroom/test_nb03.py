"""Exercises of notebook 03: right answers written another way are right, real slips are named."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_utils.classroom.checks import exercises
from course_utils.classroom.faults import FAULTS
from course_utils.distill import losses

MINE = {name: exercise for name, exercise in exercises().items() if exercise.notebook == "03"}


# Right answers, written in other ways


def soften_with_logsumexp(logits, temperature):
    scaled = logits / temperature
    return (scaled - scaled.logsumexp(-1, keepdim=True)).exp()


def soften_in_float64(logits, temperature):
    scaled = logits.double() / temperature
    exponentials = (scaled - scaled.max(-1, keepdim=True).values).exp()
    return (exponentials / exponentials.sum(-1, keepdim=True)).float()


def kl_with_kl_div(p, q):
    return F.kl_div(q.log(), p, reduction="none").sum(-1)


def kl_with_loops(p, q):
    def row(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    if p.dim() == 1:
        return torch.tensor(row(p.tolist(), q.tolist()))
    return torch.tensor([row(*pair) for pair in zip(p.tolist(), q.tolist(), strict=True)])


def soft_with_the_library(student_logits, teacher_logits, temperature):
    return losses.soft_kl(student_logits, teacher_logits, temperature=temperature).mean()


def soft_as_ce_minus_entropy(student_logits, teacher_logits, temperature):
    log_p = F.log_softmax(teacher_logits / temperature, dim=-1)
    cross_entropy = F.cross_entropy(student_logits / temperature, log_p.exp())
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    return temperature * temperature * (cross_entropy - entropy)


def mean_with_where(losses_, counted):
    return torch.where(counted, losses_, torch.zeros(())).sum() / max(int(counted.sum()), 1)


def mean_with_an_if(losses_, counted):
    if not counted.any():
        return torch.tensor(0.0)
    return losses_[counted].mean()


def mix_with_the_library(student_logits, teacher_logits, labels, alpha, temperature):
    return losses.distillation_loss(
        student_logits, teacher_logits, labels, alpha=alpha, temperature=temperature
    )


def cosine_with_the_embedding_loss(student_hidden, teacher_hidden, attention_mask):
    s, t = (hidden[attention_mask == 1] for hidden in (student_hidden, teacher_hidden))
    return F.cosine_embedding_loss(s, t, torch.ones(len(s)))


def cosine_with_sums(student_hidden, teacher_hidden, attention_mask):
    cosines = F.cosine_similarity(student_hidden, teacher_hidden, dim=2)
    return 1 - (cosines * attention_mask).sum() / attention_mask.sum()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("soften", soften_with_logsumexp),
        ("soften", soften_in_float64),
        ("kl_divergence", kl_with_kl_div),
        ("kl_divergence", kl_with_loops),
        ("soft_loss", soft_with_the_library),
        ("soft_loss", soft_as_ce_minus_entropy),
        ("counted_mean", mean_with_where),
        ("counted_mean", mean_with_an_if),
        ("counted_mean", losses.mean_over_counted),
        ("mixed_loss", mix_with_the_library),
        ("cosine_loss", cosine_with_the_embedding_loss),
        ("cosine_loss", cosine_with_sums),
        ("cosine_loss", lambda s, t, m: losses.hidden_cosine(s, t, counted=m.bool())),
        ("spot_the_fault", FAULTS.get),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = MINE[name].judge(answer)
    assert verdict.state == "right", verdict.why


# Slips as learners write them


def naive_softmax(logits, temperature):
    return torch.exp(logits / temperature) / torch.exp(logits / temperature).sum(-1, keepdim=True)


def kd(student_logits, teacher_logits, temperature, *, reduction="batchmean", factor=True):
    kl = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.softmax(teacher_logits / temperature, dim=1),
        reduction=reduction,
    )
    return kl * temperature**2 if factor else kl


def kd_by_logs(student_logits, teacher_logits, temperature):
    q, p = ((z / temperature).softmax(-1) for z in (student_logits, teacher_logits))
    return temperature**2 * F.kl_div(q.log(), p, reduction="batchmean")


@pytest.mark.filterwarnings("ignore:reduction")  # F.kl_div itself warns of "mean"
@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        ("soften", naive_softmax, "overflows"),
        (
            "soften",
            lambda z, T: torch.exp(z * T) / torch.exp(z * T).sum(-1, keepdim=True),
            "multiplies_by_t_and_overflows",
        ),
        ("soften", lambda z, T: torch.softmax(z, dim=-1) / T, "divides_the_probabilities"),
        ("soften", lambda z, T: F.log_softmax(z / T, dim=-1), "returns_the_logs"),
        ("soften", lambda z, T: torch.softmax(z / T, dim=0), "softmax_over_the_wrong_axis"),
        ("kl_divergence", lambda p, q: (p * (p / q).log()).sum(-1), "nan_where_p_is_zero"),
        (
            "kl_divergence",
            lambda p, q: (p * (p / q).log()).sum(),
            "one_number_for_all_and_nan_where_p_is_zero",
        ),
        ("kl_divergence", lambda p, q: (q * (q / p).log()).sum(-1), "the_wrong_way_round"),
        (
            "kl_divergence",
            lambda p, q: F.kl_div(q.log(), p, reduction="none").mean(-1),
            "mean_over_classes",
        ),
        ("soft_loss", lambda s, t, T: kd(s, t, T, factor=False), "no_t_squared"),
        ("soft_loss", lambda s, t, T: kd(s, t, T, reduction="mean"), "mean_over_classes"),
        (
            "soft_loss",
            lambda s, t, T: kd(s, t, T, reduction="mean", factor=False),
            "no_t_squared_and_mean_over_classes",
        ),
        ("soft_loss", lambda s, t, T: kd(s, t, T, reduction="sum"), "sum_over_texts"),
        ("soft_loss", lambda s, t, T: kd(t, s, T), "the_wrong_way_round"),
        ("soft_loss", lambda s, t, T: kd(s, t * T, T), "teacher_not_softened"),
        (
            "soft_loss",
            lambda s, t, T: T * T * F.cross_entropy(s / T, (t / T).softmax(-1)),
            "cross_entropy_instead",
        ),
        (
            "soft_loss",
            kd_by_logs,
            "log_of_a_softmax",
        ),
        ("counted_mean", lambda x, c: x.mean(), "padding_counted"),
        ("counted_mean", lambda x, c: x[c].mean(), "mean_of_nothing"),
        (
            "counted_mean",
            lambda x, c: (x * c).sum() / c.sum(),
            "infinity_times_zero_and_mean_of_nothing",
        ),
        (
            "counted_mean",
            lambda x, c: (x * c).sum() / x.numel(),
            "divided_by_all_positions_and_infinity_times_zero",
        ),
        (
            "mixed_loss",
            lambda s, t, y, a, T: (1 - a) * F.cross_entropy(s, y) + a * kd(s, t, T),
            "alpha_on_the_soft_loss",
        ),
        (
            "mixed_loss",
            lambda s, t, y, a, T: a * F.cross_entropy(s / T, y) + (1 - a) * kd(s, t, T),
            "softened_hard_loss",
        ),
        (
            "mixed_loss",
            lambda s, t, y, a, T: (
                (1 - a) * F.cross_entropy(s, y) + a * kd(s, t, T, reduction="mean")
            ),
            "alpha_on_the_soft_loss_and_mean_over_classes",
        ),
        (
            "cosine_loss",
            lambda s, t, m: (1 - F.cosine_similarity(s, t, dim=-1)).mean(),
            "padding_counted",
        ),
        (
            "cosine_loss",
            lambda s, t, m: (1 - F.cosine_similarity(s, t)).mean(),
            "cosine_along_the_tokens",
        ),
        ("spot_the_fault", lambda loss: {**FAULTS, "J": "nothing"}[loss], "j_is_not_nothing"),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = MINE[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake), verdict.why


def test_dividing_the_teachers_logits_in_place_is_found_out():
    def in_place(student_logits, teacher_logits, temperature):
        teacher_logits /= temperature
        return soft_with_the_library(student_logits, teacher_logits * temperature, temperature)

    verdict = MINE["soft_loss"].judge(in_place)
    assert verdict.state == "wrong"
    assert "changes `teacher_logits`" in verdict.why


@pytest.mark.filterwarnings("ignore:reduction")
def test_two_slips_are_both_explained():
    verdict = MINE["soft_loss"].judge(lambda s, t, T: kd(s, t, T, reduction="mean", factor=False))
    assert "The factor T² is missing" in verdict.why
    assert "mean over classes" in verdict.why


def test_a_float_where_a_tensor_is_wanted_is_refused():
    verdict = MINE["soft_loss"].judge(lambda s, t, T: kd(s, t, T).item())
    assert verdict.state == "wrong"
    assert "a torch tensor" in verdict.why
