"""Ten distillation losses for "Spot the fault": eight wrong in ways that circulate, two right.

Each takes the student's logits `s` (B, S, C), the teacher as it comes from its own training
(dropout on), the `inputs` it reads, `labels` (B, S; -100 at padding), `mask` (B, S; True at real
tokens), `alpha` (the weight of the hard loss) and the temperature `T`. A right one returns
alpha · hard + (1 - alpha) · T² · soft, each a mean over real tokens (Hinton et al. 2015, section
2), give or take what the student cannot change. `fault_trials` shows where each
betrays itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.distill.losses import hard_cross_entropy, mean_over_counted, soft_kl

Loss = Callable[..., Tensor]

NO_FAULT = "nothing"


def loss_a(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.cross_entropy(s[mask], labels[mask])
    log_q, p = (s / T).log_softmax(-1), t.softmax(-1)
    soft = F.kl_div(log_q[mask], p[mask], reduction="batchmean")
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_b(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.cross_entropy(s[mask], labels[mask])
    log_q, p = (s / T).log_softmax(-1), (t / T).softmax(-1)
    soft = F.kl_div(log_q, p, reduction="none")[mask].mean()
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_c(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.nll_loss(s[mask].log_softmax(-1), labels[mask])
    log_q, p = (s / T).log_softmax(-1), (t / T).softmax(-1)
    soft = -(p * log_q)[mask].sum() / mask.sum()
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_d(s, teacher, inputs, labels, mask, alpha, T):
    t = teacher(inputs)
    hard = F.cross_entropy(s[mask], labels[mask])
    log_q, p = (s / T).log_softmax(-1), (t / T).softmax(-1)
    soft = F.kl_div(log_q[mask], p[mask], reduction="batchmean")
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_e(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.cross_entropy(s.flatten(0, 1), labels.flatten())
    log_q, p = (s / T).log_softmax(-1), (t / T).softmax(-1)
    soft = F.kl_div(log_q, p, reduction="none").sum(-1).mean()
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_f(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    s /= T
    t /= T
    hard = F.cross_entropy(s[mask], labels[mask])
    soft = F.kl_div(s.log_softmax(-1)[mask], t.softmax(-1)[mask], reduction="batchmean")
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_g(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.cross_entropy(s.flatten(0, 1), labels.flatten())
    log_q, log_p = (s / T).log_softmax(-1), (t / T).log_softmax(-1)
    soft = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return alpha * hard + (1 - alpha) * T**2 * soft[mask].mean()


def loss_h(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.cross_entropy(s[mask].softmax(-1), labels[mask])
    log_q, p = (s / T).log_softmax(-1), (t / T).softmax(-1)
    soft = F.kl_div(log_q[mask], p[mask], reduction="batchmean")
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_i(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.cross_entropy(s[mask], labels[mask])
    q, log_p = (s / T).softmax(-1), (t / T).log_softmax(-1)
    soft = F.kl_div(log_p[mask], q[mask], reduction="batchmean")
    return alpha * hard + (1 - alpha) * T**2 * soft


def loss_j(s, teacher, inputs, labels, mask, alpha, T):
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = F.cross_entropy(s[mask], labels[mask])
    log_q, p = (s / T).log_softmax(-1), (t / T).softmax(-1)
    soft = F.kl_div(log_q[mask], p[mask], reduction="batchmean")
    return alpha * hard + (1 - alpha) * soft


def library_loss(s, teacher, inputs, labels, mask, alpha, T):
    """What all ten want to be, made of the course's own losses."""
    with torch.no_grad():
        t = teacher.eval()(inputs)
    hard = mean_over_counted(hard_cross_entropy(s, labels), mask)
    soft = mean_over_counted(soft_kl(s, t, temperature=T), mask)
    return alpha * hard + (1 - alpha) * soft


LOSSES: dict[str, Loss] = {
    function.__name__[-1].upper(): function
    for function in (
        loss_a,
        loss_b,
        loss_c,
        loss_d,
        loss_e,
        loss_f,
        loss_g,
        loss_h,
        loss_i,
        loss_j,
    )
}
FAULTS: dict[str, str] = {
    "A": "T on one side only",
    "B": "mean over classes",
    "C": NO_FAULT,
    "D": "teacher not frozen",
    "E": "padding counted",
    "F": "changes its input",
    "G": NO_FAULT,
    "H": "softmax twice",
    "I": "KL the wrong way round",
    "J": "no T²",
}
