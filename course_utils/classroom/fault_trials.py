"""Where a faulty loss betrays itself: for each fault of "Spot the fault" an input made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.classroom.faults import FAULTS, LOSSES, NO_FAULT, Loss, library_loss


@dataclass(frozen=True)
class Finding:
    """Whether a loss stands a trial; what it was given, and what came of it, in a sentence each."""

    stands: bool
    given: str
    found: str


class Teacher(nn.Module):
    """A teacher with dropout, in train mode: its logits are its inputs times one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dropout(inputs) * self.weight


def _ask(
    loss: Loss,
    s: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
    *,
    alpha: float = 0.0,
    T: float = 2.0,
) -> tuple[float, Tensor]:
    """Value and gradient (for `s`) of a loss on logits (B, S, C); padding is where labels are -100.

    Without labels every token counts, and its label is class 0.
    """
    leaf = s.clone().requires_grad_()
    labels = torch.zeros(s.shape[:-1], dtype=torch.long) if labels is None else labels
    value = loss(leaf.clone(), Teacher(), t, labels, labels != -100, alpha, T)
    value.backward()
    return value.item(), leaf.grad


def _logits(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def without_t_squared(loss: Loss) -> Finding:
    """The soft gradient at T = 8 against that at T = 1: T² keeps them of one size."""
    s, t = _logits(1, 4, 5, seed=0), _logits(1, 4, 5, seed=1)
    warm, cold = (_ask(loss, s, t, T=T)[1].norm().item() for T in (8.0, 1.0))
    return Finding(
        warm > cold / 8,
        "On one pair of logits, with alpha = 0, we ask for the norm of the gradient.",
        f"It is {cold:.3f} at T = 1 and {warm:.3f} at T = 8.",
    )


def t_on_one_side(loss: Loss) -> Finding:
    """A student with its teacher's very logits has nothing more to learn."""
    t = torch.tensor([[[3.0, 1.0, 0.0]]])
    gradient = _ask(loss, t, t)[1]
    return Finding(
        bool(gradient.abs().max() < 1e-5),
        "Student and teacher both say [3, 1, 0], alpha = 0: the student is where it should be.",
        f"The gradient is {_numbers(gradient)}.",
    )


def the_wrong_way_round(loss: Loss) -> Finding:
    """A teacher torn between two classes: is it worse to ignore one, or to be vague?"""
    torn = torch.tensor([[[4.0, 4.0, -8.0]]])
    one_sided = _ask(loss, torch.tensor([[[6.0, -2.0, -8.0]]]), torn)[0]
    vague = _ask(loss, torch.tensor([[[0.0, 0.0, 0.0]]]), torn)[0]
    return Finding(
        vague < one_sided,
        "The teacher says [4, 4, -8]: the first two classes, equally. One student says "
        "[6, -2, -8] and so ignores the second, another [0, 0, 0] and so rules nothing out; "
        "alpha = 0.",
        f"The first has a loss of {one_sided:.2f}, the other {vague:.2f}.",
    )


def divided_by_classes(loss: Loss) -> Finding:
    """Classes in which nobody believes change nothing about student and teacher."""
    s, t = torch.tensor([[[1.0, 0.0, -1.0]]]), torch.tensor([[[0.0, 2.0, 0.0]]])
    few = _ask(loss, s, t)[1].norm().item()
    many = _ask(loss, F.pad(s, (0, 27), value=-90.0), F.pad(t, (0, 27), value=-90.0))[1]
    many = many.norm().item()
    return Finding(
        many > few / 2,
        "Student [1, 0, -1], teacher [0, 2, 0], alpha = 0. Then we give both 27 more classes with "
        "a logit of -90, in which nobody believes.",
        f"The norm of the gradient is {few:.3f} with 3 classes and {many:.3f} with 30.",
    )


def softmax_twice(loss: Loss) -> Finding:
    """A student that is sure, and right, has no hard loss left."""
    s = torch.tensor([[[30.0, 0.0, 0.0]]])
    value = _ask(loss, s, s, alpha=1.0)[0]
    return Finding(
        value < 0.01,
        "The student says [30, 0, 0], the label is class 0, alpha = 1: it could not be more right.",
        f"The loss is {value:.2f}.",
    )


def padding_counted(loss: Loss) -> Finding:
    """The same text with and without padding, in whose place the logits are anything."""
    s, t = _logits(1, 6, 3, seed=2), _logits(1, 6, 3, seed=3)
    labels = torch.tensor([[0, 1, 2, -100, -100, -100]])
    short = _ask(loss, s[:, :3], t[:, :3], labels[:, :3], alpha=0.5)[0]
    padded = _ask(loss, s, t, labels, alpha=0.5)[0]
    return Finding(
        abs(padded - short) < 1e-5,
        "A text of three tokens, as it is and padded to six.",
        f"The loss is {short:.3f} as it is and {padded:.3f} with padding.",
    )


def teacher_not_frozen(loss: Loss) -> Finding:
    """A frozen teacher says the same twice, and gets no gradient."""
    s, t = _logits(1, 20, 3, seed=4).requires_grad_(), _logits(1, 20, 3, seed=5)
    labels, teacher = torch.zeros(1, 20, dtype=torch.long), Teacher()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = (
            loss(s.clone(), teacher, t, labels, labels == 0, 0.0, 2.0) for _ in range(2)
        )
    second.backward()
    touched = teacher.weight.grad is not None
    return Finding(
        not touched and torch.equal(first, second),
        "We ask twice about one and the same input.",
        f"The loss is {'the same' if torch.equal(first, second) else 'another'} the second time, "
        f"and {'a' if touched else 'no'} gradient arrives in the teacher.",
    )


def changes_its_input(loss: Loss) -> Finding:
    """What was handed over is afterwards what it was before."""
    s, t = torch.tensor([[[2.0, 0.0, -2.0]]]), torch.tensor([[[4.0, 0.0, 0.0]]])
    labels = torch.zeros(1, 1, dtype=torch.long)
    given = s.clone()
    value = loss(given, Teacher(), t, labels, labels == 0, 1.0, 2.0).item()
    wanted = F.cross_entropy(s[0], labels[0]).item()
    return Finding(
        torch.equal(given, s) and abs(value - wanted) < 1e-5,
        "The student says [2, 0, -2], the label is class 0, T = 2, alpha = 1: the hard loss alone.",
        f"The loss is {value:.3f}, and the student's logits are {_numbers(given)} afterwards.",
    )


def _numbers(tensor: Tensor) -> str:
    # + 0 makes 0.0 of the -0.0 that rounding leaves behind
    return f"[{', '.join(f'{round(x, 2) + 0:g}' for x in tensor.flatten().tolist())}]"


TRIALS: dict[str, Callable[[Loss], Finding]] = {
    "no T²": without_t_squared,
    "T on one side only": t_on_one_side,
    "KL the wrong way round": the_wrong_way_round,
    "mean over classes": divided_by_classes,
    "softmax twice": softmax_twice,
    "padding counted": padding_counted,
    "teacher not frozen": teacher_not_frozen,
    "changes its input": changes_its_input,
}


# What to add where one particular wrong answer is often given.
CONFUSIONS: dict[tuple[str, str], str] = {
    ("C", "KL the wrong way round"): "Its soft loss is a cross-entropy, which differs from the KL "
    "by the teacher's entropy. No student can change that, so the gradients are the same.",
    ("C", "softmax twice"): "`nll_loss` takes log-probs, so the log-softmax before it is the only "
    "softmax there.",
    ("G", "mean over classes"): '`reduction="none"` and a sum over the last axis: the mean that '
    "follows goes over tokens alone.",
    ("B", "no T²"): "T² is there. What makes the soft loss small is something else.",
    ("A", "no T²"): "T² is there. Count where T divides.",
    ("J", "T on one side only"): "Both sides are divided by T. What does that do to the gradient?",
    ("F", "no T²"): "T² is there. Look at what the hard loss is computed from.",
}


def explain(letter: str, answer: object) -> str:
    """Why `answer` is not what is wrong with this loss, and the input on which that shows.

    A loss accused in vain is shown on the input made for that fault, every other one on the input
    on which it betrays itself. What its fault is called is left to the reader.
    """
    loss, fault = LOSSES[letter], FAULTS[letter]
    said = f"Loss {letter}: you say “{answer}”."
    if answer not in TRIALS and answer != NO_FAULT:
        return f"{said} Choose one of: {', '.join([NO_FAULT, *TRIALS])}."
    trial = TRIALS[str(answer) if fault == NO_FAULT else fault]
    finding, wanted = trial(loss), trial(library_loss)
    shown = f"{finding.given} {finding.found}"
    if fault == NO_FAULT:
        shown = f"Where that would show, nothing is amiss. {shown}"
    else:
        shown = f"Look at this. {shown} With the library's loss: {wanted.found}"
    return " ".join(filter(None, (said, CONFUSIONS.get((letter, str(answer))), shown)))
