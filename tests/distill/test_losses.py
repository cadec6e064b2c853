"""Every loss against loops over Python numbers, value and gradient, and against known figures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from course_utils.distill.losses import (
    distillation_loss,
    hard_binary,
    hard_cross_entropy,
    hard_loss,
    has_label,
    hidden_cosine,
    hidden_mse,
    is_multi_label,
    masked_lm,
    mean_over_counted,
    soft_binary_kl,
    soft_cross_entropy,
    soft_kl,
    triple_loss,
)
from course_utils.distill.refusals import NotFiniteError
from course_utils.errors import DataError, ModelError

SHAPES = [(4, 3), (2, 3, 7)]  # (N, C) and (B, S, V)
TEMPERATURES = [1.0, 2.0, 8.0]
TOLERANCE = {
    torch.float64: 1e-6,
    torch.float32: 1e-4,
    torch.float16: 3e-3,
    torch.bfloat16: 2e-2,
}
NAN, INF = math.nan, math.inf


# The references: slow, obvious, on lists of Python floats.


def naive_log_probs(row: list[float], temperature: float) -> list[float]:
    largest = max(row)
    total = sum(math.exp((x - largest) / temperature) for x in row)
    return [(x - largest) / temperature - math.log(total) for x in row]


def naive_soft_cross_entropy(student: list[float], teacher: list[float], t: float) -> float:
    s, q = naive_log_probs(student, t), naive_log_probs(teacher, t)
    return t * t * -sum(math.exp(q[c]) * s[c] for c in range(len(s)))


def naive_soft_kl(student: list[float], teacher: list[float], t: float) -> float:
    s, q = naive_log_probs(student, t), naive_log_probs(teacher, t)
    return t * t * sum(math.exp(q[c]) * (q[c] - s[c]) for c in range(len(s)))


def naive_hard(row: list[float], label: int) -> float:
    return 0.0 if label == -100 else -naive_log_probs(row, 1.0)[label]


def naive_distillation(
    student: list[list[float]],
    teacher: list[list[float]],
    labels: list[int],
    alpha: float,
    temperature: float,
) -> float:
    total = 0.0
    for row, target, label in zip(student, teacher, labels, strict=True):
        soft = naive_soft_kl(row, target, temperature)
        if label == -100:
            total += soft
        else:
            total += alpha * naive_hard(row, label) + (1 - alpha) * soft
    return total / len(labels)


def naive_squares(student: list[float], teacher: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(student, teacher, strict=True)) / len(student)


def naive_cosine(student: list[float], teacher: list[float]) -> float:
    product = sum(a * b for a, b in zip(student, teacher, strict=True))
    lengths = math.sqrt(sum(a * a for a in student)) * math.sqrt(sum(b * b for b in teacher))
    return 1 - product / lengths


def naive_mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def rows_of(tensor: torch.Tensor) -> list[list[float]]:
    return tensor.detach().double().flatten(0, -2).tolist()


def slopes(loss, rows: list[list[float]], step: float = 1e-5) -> torch.Tensor:
    """The gradient of `loss(rows)` by central differences, one number after the other."""
    gradient = torch.zeros(len(rows), len(rows[0]), dtype=torch.float64)
    for i, row in enumerate(rows):
        for c, value in enumerate(row):
            row[c] = value + step
            up = loss(rows)
            row[c] = value - step
            gradient[i, c] = (up - loss(rows)) / (2 * step)
            row[c] = value
    return gradient


def logits(shape, *, dtype=torch.float64, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def pair(shape, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return logits(shape, dtype=dtype).requires_grad_(), logits(shape, dtype=dtype, seed=1)


def assert_close(found, expected, *, dtype=torch.float64) -> None:
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        torch.as_tensor(found, dtype=torch.float64).reshape(-1),
        torch.as_tensor(expected, dtype=torch.float64).reshape(-1),
        rtol=tolerance,
        atol=tolerance / 10,
    )


# Value and gradient


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("loss", "naive"),
    [(soft_kl, naive_soft_kl), (soft_cross_entropy, naive_soft_cross_entropy)],
    ids=["kl", "cross-entropy"],
)
def test_soft_losses_equal_the_loops(loss, naive, shape, dtype, temperature):
    student, teacher = pair(shape, dtype)
    per_position = loss(student, teacher, temperature=temperature)
    assert per_position.shape == shape[:-1]
    targets = rows_of(teacher)
    expected = [naive(s, t, temperature) for s, t in zip(rows_of(student), targets, strict=True)]
    assert_close(per_position, expected, dtype=dtype)

    mean_over_counted(per_position).backward()

    def naive_mean(rows):
        return sum(map(naive, rows, targets, [temperature] * len(rows))) / len(rows)

    assert student.grad.dtype == dtype
    assert_close(student.grad, slopes(naive_mean, rows_of(student)), dtype=dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_hard_cross_entropy_equals_the_loops(shape, dtype):
    student = logits(shape, dtype=dtype).requires_grad_()
    labels = torch.arange(math.prod(shape[:-1])).reshape(shape[:-1]) % shape[-1]
    labels.view(-1)[1] = -100
    per_position = hard_cross_entropy(student, labels)
    assert per_position.shape == labels.shape
    flat = labels.flatten().tolist()
    assert_close(per_position, list(map(naive_hard, rows_of(student), flat)), dtype=dtype)

    mean_over_counted(per_position, labels != -100).backward()

    def naive_mean(rows):
        return sum(map(naive_hard, rows, flat)) / (len(flat) - 1)

    assert_close(student.grad, slopes(naive_mean, rows_of(student)), dtype=dtype)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "labels", [[0, 2, 1, 1], [-100] * 4, [0, -100, 1, -100]], ids=["all", "none", "mixed"]
)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_distillation_loss_equals_the_loops(dtype, labels, alpha, temperature):
    student, teacher = pair((4, 3), dtype)
    loss = distillation_loss(
        student, teacher, torch.tensor(labels), alpha=alpha, temperature=temperature
    )
    assert loss.shape == ()

    def naive(rows):
        return naive_distillation(rows, rows_of(teacher), labels, alpha, temperature)

    assert_close(loss, naive(rows_of(student)), dtype=dtype)
    loss.backward()
    assert_close(student.grad, slopes(naive, rows_of(student)), dtype=dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("loss", "naive"),
    [(hidden_mse, naive_squares), (hidden_cosine, naive_cosine)],
    ids=["mse", "cosine"],
)
@pytest.mark.parametrize("some", [False, True], ids=["all", "some"])
def test_hidden_losses_equal_the_loops(some, loss, naive, shape, dtype):
    student, teacher = pair(shape, dtype)
    counted = torch.arange(math.prod(shape[:-1])).reshape(shape[:-1]) % 3 != 1
    found = loss(student, teacher, counted=counted if some else None)
    assert found.shape == ()
    targets = rows_of(teacher)
    kept = counted.flatten().tolist() if some else [True] * len(targets)

    def naive_over_counted(rows):
        return naive_mean([naive(*x) for *x, k in zip(rows, targets, kept, strict=True) if k])

    assert_close(found, naive_over_counted(rows_of(student)), dtype=dtype)
    found.backward()
    assert student.grad.dtype == dtype
    assert_close(student.grad, slopes(naive_over_counted, rows_of(student)), dtype=dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("labels", [[[4, 0, 6], [1, 1, 3]], [[-100, 5, -100], [-100, -100, 2]]])
def test_masked_lm_equals_the_loops(labels, dtype):
    student = logits((2, 3, 7), dtype=dtype).requires_grad_()
    found = masked_lm(student, torch.tensor(labels))
    flat = labels[0] + labels[1]

    def naive(rows):
        return naive_mean([naive_hard(*x) for x in zip(rows, flat, strict=True) if x[1] != -100])

    assert_close(found, naive(rows_of(student)), dtype=dtype)
    found.backward()
    assert_close(student.grad, slopes(naive, rows_of(student)), dtype=dtype)


LABELS = torch.tensor([[-100, 5, -100, -100], [3, 0, -100, -100]])
ATTENTION = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def triple(dtype=torch.float64) -> dict[str, torch.Tensor]:
    """The tensors of a triple loss: two texts of 3 and 2 tokens, 7 words, hidden size 5."""
    (student, teacher), hidden = pair((2, 4, 7), dtype), pair((2, 4, 5), dtype)
    named = {"student_logits": student, "teacher_logits": teacher, "labels": LABELS}
    named |= {"student_hidden": hidden[0], "teacher_hidden": hidden[1]}
    return named | {"attention_mask": ATTENTION}


def naive_triple(given, logit_rows, hidden_rows, temperature, soft, hard, cosine) -> list[float]:
    attended = [k for k, is_token in enumerate(ATTENTION.flatten().tolist()) if is_token]
    labelled = [k for k, label in enumerate(LABELS.flatten().tolist()) if label != -100]
    teacher = rows_of(given["teacher_logits"])
    teacher_hidden = rows_of(given["teacher_hidden"])
    labels = LABELS.flatten().tolist()
    parts = [
        naive_mean([naive_soft_kl(logit_rows[k], teacher[k], temperature) for k in attended]),
        naive_mean([naive_hard(logit_rows[k], labels[k]) for k in labelled]),
        naive_mean([naive_cosine(hidden_rows[k], teacher_hidden[k]) for k in attended]),
    ]
    return [soft * parts[0] + hard * parts[1] + cosine * parts[2], *parts]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("weights", [(5.0, 2.0, 1.0), (0.0, 1.0, 0.0), (0.3, 0.0, 7.0)], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_triple_loss_equals_the_loops(dtype, weights, temperature):
    given = triple(dtype)
    numbers = dict(zip(("soft", "hard", "cosine"), weights, strict=True))
    numbers["temperature"] = temperature
    found = triple_loss(**given, **numbers)
    rows, hidden_rows = rows_of(given["student_logits"]), rows_of(given["student_hidden"])
    assert_close(
        torch.stack(found).detach(), naive_triple(given, rows, hidden_rows, **numbers), dtype=dtype
    )
    found.total.backward()
    by_logits = slopes(lambda r: naive_triple(given, r, hidden_rows, **numbers)[0], rows)
    by_hidden = slopes(lambda r: naive_triple(given, rows, r, **numbers)[0], hidden_rows)
    assert_close(given["student_logits"].grad, by_logits, dtype=dtype)
    assert_close(given["student_hidden"].grad, by_hidden, dtype=dtype)


def test_the_triple_loss_has_the_weights_and_the_temperature_of_the_authors_code():
    given = triple()
    expected = triple_loss(**given, temperature=2.0, soft=5.0, hard=2.0, cosine=1.0)
    assert triple_loss(**given) == expected


# Figures worked out by hand


def test_hand_calculated_numbers():
    teacher, student = torch.tensor([[0.1, 0.2, 0.7]]).log(), torch.tensor([[0.2, 0.3, 0.5]]).log()
    cross_entropy = soft_cross_entropy(student, teacher).item()
    assert cross_entropy == pytest.approx(0.8869, abs=5e-5)
    assert cross_entropy / math.log(2) == pytest.approx(1.2796, abs=5e-5)  # in bits
    assert soft_cross_entropy(teacher, teacher).item() == pytest.approx(0.8018, abs=5e-5)  # entropy
    assert soft_kl(student, teacher).item() == pytest.approx(0.0851, abs=5e-5)
    assert soft_kl(teacher, student).item() == pytest.approx(0.0920, abs=5e-5)  # the other way
    assert hard_cross_entropy(student, torch.tensor([2])).item() == pytest.approx(math.log(2))


def test_distillation_loss_adds_its_parts_as_the_formula_says():
    teacher, student = torch.tensor([[0.1, 0.2, 0.7]]).log(), torch.tensor([[0.2, 0.3, 0.5]]).log()
    loss = distillation_loss(student, teacher, torch.tensor([2]), alpha=0.25, temperature=1.0)
    assert loss.item() == pytest.approx(0.25 * 0.6931 + 0.75 * 0.0851, abs=1e-4)


@pytest.mark.parametrize(
    ("student", "expected"), [([6.0, 8.0], 0.0), ([4.0, -3.0], 1.0), ([-3.0, -4.0], 2.0)]
)
def test_hidden_cosine_of_small_vectors(student, expected):
    found = hidden_cosine(torch.tensor([student]), torch.tensor([[3.0, 4.0]]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_hidden_cosine_is_the_loss_that_the_original_code_calls():
    student, teacher = pair((6, 5))
    expected = F.cosine_embedding_loss(student, teacher, torch.ones(6))
    torch.testing.assert_close(hidden_cosine(student, teacher), expected)


def test_hidden_mse_of_two_small_vectors():
    student, teacher = (
        torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        torch.tensor([[1.0, 4.0], [3.0, 1.0]]),
    )
    assert hidden_mse(student, teacher).item() == pytest.approx((4 / 2 + 10 / 2) / 2)


# What the formulas promise


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("loss", [soft_kl, soft_cross_entropy])
def test_gradient_is_t_times_the_difference_of_the_soft_classes(loss, shape, temperature):
    student, teacher = pair(shape)
    mean_over_counted(loss(student, teacher, temperature=temperature)).backward()
    difference = F.softmax(student / temperature, -1) - F.softmax(teacher / temperature, -1)
    n_positions = math.prod(shape[:-1])
    torch.testing.assert_close(student.grad, temperature * difference.detach() / n_positions)


def gradient_size(temperature: float, *, divide_by: float = 1.0) -> float:
    student, teacher = pair((64, 8))
    (mean_over_counted(soft_kl(student, teacher, temperature=temperature)) / divide_by).backward()
    return student.grad.norm().item()


def test_the_factor_t_squared_keeps_the_size_of_the_gradient():
    assert gradient_size(8.0) / gradient_size(4.0) == pytest.approx(1.0, abs=0.05)
    # Without the factor twice the temperature means a quarter of the gradient.
    without = gradient_size(8.0, divide_by=8.0**2) / gradient_size(4.0, divide_by=4.0**2)
    assert without == pytest.approx(1 / 4, rel=0.05)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_cross_entropy_is_kl_plus_t_squared_times_the_teachers_entropy(temperature):
    student, teacher = pair((5, 6))
    probs = F.softmax(teacher / temperature, -1)
    entropy = -(probs * probs.log()).sum(-1)
    difference = soft_cross_entropy(student, teacher, temperature=temperature) - soft_kl(
        student, teacher, temperature=temperature
    )
    torch.testing.assert_close(difference.detach(), temperature**2 * entropy)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_zero_for_equal_logits_and_positive_for_others(temperature):
    student, teacher = pair((5, 6))
    equal = soft_kl(teacher.clone().requires_grad_(), teacher, temperature=temperature)
    torch.testing.assert_close(equal.detach(), torch.zeros_like(equal), rtol=0, atol=1e-12)
    assert (soft_kl(student, teacher, temperature=temperature) > 1e-3).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("loss", [soft_kl, soft_cross_entropy])
def test_a_constant_added_to_all_logits_changes_nothing(loss, temperature):
    student, teacher = pair((5, 6))
    torch.testing.assert_close(
        loss(student + 12.5, teacher - 7.25, temperature=temperature),
        loss(student, teacher, temperature=temperature),
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_extreme_logits_stay_finite(dtype, temperature):
    student = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4], [-1e4, 1e4, 0.0]], dtype=dtype)
    kl = soft_kl(student, teacher, temperature=temperature)
    assert_close(kl, [2e4 * temperature, 0.0], dtype=dtype)
    (
        kl.sum()
        + soft_cross_entropy(student, teacher, temperature=temperature).sum()
        + hard_cross_entropy(student, torch.tensor([2, 0])).sum()
    ).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("n_classes", [3, 1000])
def test_bfloat16_logits_do_not_make_a_bfloat16_loss(n_classes):
    student = logits((16, n_classes), dtype=torch.bfloat16)
    teacher = (student + logits((16, n_classes), seed=1, scale=1.0)).to(torch.bfloat16)
    found = soft_kl(student, teacher, temperature=8.0)
    exact = soft_kl(student.double(), teacher.double(), temperature=8.0)
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=0)


def test_inputs_are_not_changed():
    student, teacher = pair((4, 3))
    labels = torch.tensor([0, 1, -100, 2])
    before = student.detach().clone(), teacher.clone(), labels.clone()
    distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0).backward()
    hidden_mse(student, teacher)
    for now, then in zip((student, teacher, labels), before, strict=True):
        assert torch.equal(now, then)


# What is not counted


@pytest.mark.parametrize("junk", [0.0, 1e30, INF, -INF, NAN])
def test_mean_over_counted_sees_only_what_is_counted(junk):
    values = torch.tensor([1.0, junk, 5.0, junk], requires_grad=True)
    loss = mean_over_counted(values, torch.tensor([True, False, True, False]))
    assert loss.item() == 3.0
    loss.backward()
    assert values.grad.tolist() == [0.5, 0.0, 0.5, 0.0]


@pytest.mark.parametrize("junk", [INF, NAN])
def test_a_position_without_label_adds_nothing_whatever_its_logits(junk):
    student = logits((2, 3, 7))
    labels = torch.tensor([[1, -100, 6], [-100, 0, 2]])
    student[labels == -100] = junk
    student.requires_grad_()
    per_position = hard_cross_entropy(student, labels)
    assert per_position[labels == -100].tolist() == [0.0, 0.0]
    loss = mean_over_counted(per_position, labels != -100)
    loss.backward()
    kept = student.detach()[labels != -100].requires_grad_()
    expected = F.cross_entropy(kept, labels[labels != -100])
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(student.grad[labels != -100], kept.grad)
    assert (student.grad[labels == -100] == 0).all()


def test_another_ignore_index_than_minus_100():
    student = logits((3, 4))
    found = hard_cross_entropy(student, torch.tensor([1, -1, 2]), ignore_index=-1)
    expected = [
        naive_hard(row, label) for row, label in zip(rows_of(student), [1, -100, 2], strict=True)
    ]
    assert_close(found, expected)


@pytest.mark.parametrize("junk", [INF, NAN])
@pytest.mark.parametrize("loss", [soft_kl, soft_cross_entropy])
def test_selected_logits_keep_junk_out_of_the_soft_losses(loss, junk):
    counted = torch.tensor([[True, True, False], [True, False, False]])
    student, teacher = logits((2, 3, 7)), logits((2, 3, 7), seed=1)
    student[~counted], teacher[~counted] = junk, junk
    student.requires_grad_()
    mean_over_counted(loss(student[counted], teacher[counted], temperature=2.0)).backward()
    assert student.grad.isfinite().all()
    assert (student.grad[~counted] == 0).all()
    assert (student.grad[counted] != 0).all()


@pytest.mark.parametrize("junk", [INF, NAN])
def test_the_triple_loss_sees_only_what_is_counted(junk):
    given = triple()
    expected = triple_loss(**given)
    expected.total.backward()
    padding = ATTENTION == 0
    spoilt = triple()
    for name in ("student_logits", "teacher_logits", "student_hidden", "teacher_hidden"):
        spoilt[name].data[padding] = junk
    found = triple_loss(**spoilt)
    assert found == expected
    found.total.backward()
    for name in ("student_logits", "student_hidden"):
        assert torch.equal(spoilt[name].grad, given[name].grad)
        assert (spoilt[name].grad[padding] == 0).all()


@pytest.mark.parametrize("junk", [1e30, INF, NAN])
def test_hidden_mse_sees_only_what_is_counted(junk):
    counted = torch.tensor([[True, True, False], [True, False, False]])
    student, teacher = logits((2, 3, 7)), logits((2, 3, 7), seed=1)
    squares = list(map(naive_squares, rows_of(student), rows_of(teacher)))
    expected = sum(squares[i] for i in (0, 1, 3)) / 3
    student[~counted], teacher[~counted] = junk, junk
    student.requires_grad_()
    loss = hidden_mse(student, teacher, counted=counted)
    assert_close(loss, expected)
    loss.backward()
    assert (student.grad[~counted] == 0).all()
    torch.testing.assert_close(
        student.grad[counted], (2 / 7 / 3) * (student.detach() - teacher)[counted]
    )


def sequence_loss(student, teacher, labels) -> torch.Tensor:
    """Every kind of loss over positions, added up."""
    counted = labels != -100
    hard = mean_over_counted(hard_cross_entropy(student, labels), counted)
    soft = mean_over_counted(soft_kl(student, teacher, temperature=2.0), counted)
    soft = soft + mean_over_counted(soft_cross_entropy(student, teacher), counted)
    hidden = hidden_mse(student, teacher, counted=counted)
    hidden = hidden + hidden_cosine(student, teacher, counted=counted)
    triple = triple_loss(student, teacher, labels, student, teacher, counted.long())
    return hard + soft + hidden + masked_lm(student, labels) + triple.total


@pytest.mark.parametrize("n_padding", [1, 5])
def test_padding_changes_neither_loss_nor_gradient(n_padding):
    student, teacher = pair((2, 3, 7))
    labels = torch.tensor([[1, 5, 0], [2, 6, -100]])
    short = sequence_loss(student, teacher, labels)
    short.backward()

    padding = logits((2, n_padding, 7), seed=2, scale=50.0)
    longer = torch.cat([student.detach(), padding], dim=1).requires_grad_()
    loss = sequence_loss(
        longer, torch.cat([teacher, -padding], dim=1), F.pad(labels, (0, n_padding), value=-100)
    )
    loss.backward()
    torch.testing.assert_close(loss, short)
    torch.testing.assert_close(longer.grad[:, :3], student.grad)
    assert (longer.grad[:, 3:] == 0).all()


def test_nothing_counted_is_zero_and_not_nan():
    student, teacher = pair((2, 3, 7))
    none = torch.zeros(2, 3, dtype=torch.bool)
    no_labels = torch.full((2, 3), -100)
    losses = [
        mean_over_counted(soft_kl(student, teacher), none),
        mean_over_counted(soft_kl(student, teacher), none, n_counted=0),
        mean_over_counted(soft_kl(student, teacher), none, n_counted=torch.tensor(0)),
        mean_over_counted(soft_cross_entropy(student[none], teacher[none])),
        mean_over_counted(hard_cross_entropy(student, no_labels), none),
        masked_lm(student, no_labels),
        hidden_mse(student, teacher, counted=none),
        hidden_cosine(student, teacher, counted=none),
        triple_loss(student, teacher, no_labels, student, teacher, none).total,
        distillation_loss(student[none], teacher[none], no_labels[none], alpha=0.5, temperature=2),
    ]
    assert [loss.item() for loss in losses] == [0.0] * len(losses)
    sum(losses).backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


# One step made of several batches


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("parts", [(16, 16), (8, 8, 8, 8), (20, 12), (31, 1)], ids=str)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(parts, as_tensor):
    student, teacher = pair((32, 5))
    labels = torch.arange(32) % 5
    labels[::3] = -100
    n_counted = torch.tensor(32) if as_tensor else 32

    def gradient(sizes, n):
        student.grad = None
        for s, t, y in zip(
            student.split(sizes), teacher.split(sizes), labels.split(sizes), strict=True
        ):
            distillation_loss(s, t, y, alpha=0.3, temperature=2.0, n_counted=n).backward()
            hidden_mse(s, t, n_counted=n).backward()
        return student.grad

    torch.testing.assert_close(gradient(list(parts), n_counted), gradient([32], None))


def test_parts_are_weighed_by_what_they_count_not_equally():
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])
    counted = torch.tensor([True, True, True, False])
    whole = mean_over_counted(values, counted)
    parts = [
        mean_over_counted(values[rows], counted[rows], n_counted=3)
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert whole.item() == sum(parts).item() == 2.0


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("rows", [(slice(0, 1), slice(1, 2)), (slice(0, 2), slice(2, 2))], ids=str)
def test_the_losses_of_two_halves_of_a_batch_add_up_to_that_of_the_batch(rows, as_tensor):
    given = triple()
    attended, labelled = (ATTENTION.sum(), (LABELS != -100).sum())
    divisors = {"n_attended": attended, "n_labelled": labelled}
    if not as_tensor:
        divisors = {name: n.item() for name, n in divisors.items()}
    whole = triple_loss(**given)
    whole.total.backward()
    halves = triple()
    parts = [triple_loss(**{k: v[half] for k, v in halves.items()}, **divisors) for half in rows]
    torch.testing.assert_close([sum(part) for part in zip(*parts, strict=True)], list(whole))
    sum(part.total for part in parts).backward()
    for name in ("student_logits", "student_hidden"):
        torch.testing.assert_close(halves[name].grad, given[name].grad)


# Positions chosen before the loss, or after it


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_masked_positions_alone_are_the_full_loss_restricted_to_them(dtype, temperature):
    counted = LABELS != -100
    full, (alone, teacher) = pair((2, 4, 7), dtype)[0], pair((2, 4, 7), dtype)

    def loss(student, teacher, labels, counted=None):
        soft = soft_kl(student, teacher, temperature=temperature)
        soft = soft + soft_cross_entropy(student, teacher, temperature=temperature)
        hidden = hidden_mse(student, teacher, counted=counted)
        hidden = hidden + hidden_cosine(student, teacher, counted=counted)
        return mean_over_counted(soft, counted) + masked_lm(student, labels) + hidden

    expected = loss(full, teacher, LABELS, counted)
    found = loss(alone[counted], teacher[counted], LABELS[counted])
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(alone.grad, full.grad)
    assert (alone.grad[~counted] == 0).all()


# What T² is for, on the logits of real networks


def spreads(student, teacher) -> tuple[float, float]:
    """Largest over smallest norm of the soft term's gradient for T = 1 … 8: with T², without."""
    with_factor, without = [], []
    for temperature in range(1, 9):
        student = student.detach().requires_grad_()
        loss = mean_over_counted(soft_kl(student, teacher, temperature=float(temperature)))
        (gradient,) = torch.autograd.grad(loss, student)
        with_factor.append(gradient.norm().item())
        without.append(gradient.norm().item() / temperature**2)
    return max(with_factor) / min(with_factor), max(without) / min(without)


def assert_steadier(student, teacher, name: str) -> None:
    """Steadier, not constant: where the models are sure of different classes the norm is about
    T · |p - q|; at high T it falls to |s - t| / C, and a vocabulary has a large C.
    """
    steady, unsteady = spreads(student, teacher)
    print(f"{name}: gradient norms spread {steady:.2f} times with T², {unsteady:.1f} without")
    assert unsteady > 3 * steady


def test_t_squared_steadies_the_gradient_on_the_logits_of_a_model(tiny_teacher_folder):
    from tiny import TEXTS
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from course_utils.models.student import student_from_teacher

    teacher = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder).eval()
    batch = AutoTokenizer.from_pretrained(tiny_teacher_folder)(
        TEXTS, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        pair = student_from_teacher(teacher, layers=2)(**batch).logits, teacher(**batch).logits
    assert_steadier(*pair, "tiny classifier, 3 classes")


@pytest.mark.weights
def test_t_squared_steadies_the_gradient_over_a_vocabulary():
    from transformers import AutoModel, AutoTokenizer

    from course_utils.data.sources import find_model
    from course_utils.models.mlm import add_mlm_head
    from course_utils.models.student import student_from_teacher

    folder = find_model(say=lambda _: None).path
    teacher = add_mlm_head(AutoModel.from_pretrained(folder, dtype=torch.float32))
    tokens = AutoTokenizer.from_pretrained(folder)("Returns the sum of a row.", return_tensors="pt")
    with torch.no_grad():
        pair = student_from_teacher(teacher, layers=3)(**tokens).logits, teacher(**tokens).logits
    assert_steadier(*pair, "MiniLM, 30522 words")


# Memory


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("loss", [soft_kl, soft_cross_entropy])
def test_a_soft_loss_keeps_two_tensors_as_wide_as_the_vocabulary(loss, temperature):
    student, teacher = pair((6, 1000), torch.float32)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss(student, teacher, temperature=temperature).sum()
    wide = [tensor for tensor in kept.values() if tensor.numel() == 6000]
    assert len(wide) == 2  # the student's log-probs and the teacher's probs


# Bad input


@pytest.mark.parametrize("temperature", [0, -2.0, INF, NAN])
@pytest.mark.parametrize("loss", [soft_kl, soft_cross_entropy])
def test_a_temperature_that_is_none(loss, temperature):
    with pytest.raises(DataError, match=r"temperature is .*(?s:.*)above 0"):
        loss(*pair((4, 3)), temperature=temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, NAN])
def test_an_alpha_that_is_no_share(alpha):
    with pytest.raises(DataError, match=r"alpha is .*hard"):
        distillation_loss(*pair((1, 3)), torch.tensor([0]), alpha=alpha, temperature=2.0)


@pytest.mark.parametrize("name", ["soft", "hard", "cosine"])
@pytest.mark.parametrize("weight", [-1.0, INF, NAN])
def test_a_weight_that_is_none(name, weight):
    with pytest.raises(DataError, match=f"weight {name} is {weight}"):
        triple_loss(**triple(), **{name: weight})


@pytest.mark.parametrize("loss", [soft_kl, soft_cross_entropy])
def test_other_classes_and_other_positions(loss):
    with pytest.raises(ModelError, match="The student has 7 classes, the teacher 8"):
        loss(logits((2, 3, 7)), logits((2, 3, 8)))
    with pytest.raises(DataError, match=r"\(2, 3\).*\(2, 4\)(?s:.*)same positions"):
        loss(logits((2, 3, 7)), logits((2, 4, 7)))


@pytest.mark.parametrize("loss", [hidden_mse, hidden_cosine])
def test_other_widths_name_the_projection(loss):
    with pytest.raises(ModelError, match=r"nn\.Linear\(384, 768\)"):
        loss(logits((2, 384)), logits((2, 768)))
    with pytest.raises(DataError, match="same positions"):
        loss(logits((2, 5)), logits((3, 5)))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1], "labels has the shape"),
        ([0, 1, 2, 3], "none of the 3 classes"),
        ([0, 1, 2, -1], "none of the 3 classes"),
        ([0.0, 1.0, 2.0, 1.0], "torch.long"),
        ([True, True, False, True], "torch.long"),
    ],
    ids=str,
)
def test_labels_that_are_none(labels, said):
    with pytest.raises(DataError, match=said):
        masked_lm(logits((4, 3)), torch.tensor(labels))


def test_labels_may_be_small_integers():
    student, labels = logits((2, 4, 7)), LABELS
    assert masked_lm(student, labels.to(torch.int32)) == masked_lm(student, labels)


@pytest.mark.parametrize(
    ("counted", "said"),
    [(ATTENTION, "bool"), (torch.ones(2, 3, dtype=torch.bool), "shape"), (ATTENTION > 5.0, None)],
    ids=["numbers", "shape", "none"],
)
def test_a_mask_that_is_none(counted, said):
    student, teacher = pair((2, 4, 5))
    losses = [
        lambda: mean_over_counted(student.sum(-1), counted),
        lambda: hidden_mse(student, teacher, counted=counted),
        lambda: hidden_cosine(student, teacher, counted=counted),
    ]
    for loss in losses:
        if said is None:
            assert loss().item() == 0.0
        else:
            with pytest.raises(DataError, match=said):
                loss()


def test_an_attention_mask_of_another_shape():
    with pytest.raises(DataError, match="attention_mask has the shape"):
        triple_loss(**triple() | {"attention_mask": ATTENTION[:, :3]})


@pytest.mark.parametrize("junk", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["student_logits", "teacher_logits"])
def test_logits_that_are_no_numbers_are_named(name, junk):
    whose = name.removesuffix("_logits")
    given = dict(zip(("student_logits", "teacher_logits"), pair((4, 3)), strict=True))
    given[name].data[2, 1] = junk
    with pytest.raises(
        NotFiniteError, match=rf"The {whose}'s logits .*{junk}(?s:.*)position 2, entry 1"
    ):
        distillation_loss(**given, labels=torch.tensor([0, 1, 1, 2]), alpha=0.5, temperature=2.0)


@pytest.mark.parametrize("junk", [NAN, INF])
@pytest.mark.parametrize(
    "name", ["student_logits", "teacher_logits", "student_hidden", "teacher_hidden"]
)
def test_the_triple_loss_names_what_is_no_number(name, junk):
    given = triple()
    given[name].data[1, 0, 3] = junk
    whose, what = name.split("_")
    with pytest.raises(
        NotFiniteError, match=rf"The {whose}'s {what} (?s:.*)position 1, 0, entry 3"
    ):
        triple_loss(**given)


def test_masked_lm_names_what_is_no_number_where_it_counts():
    student = logits((2, 4, 7))
    student[LABELS == -100] = NAN
    assert masked_lm(student, LABELS).isfinite()
    student[1, 1, 6] = NAN
    with pytest.raises(
        NotFiniteError, match=r"The model's logits hold nan(?s:.*)position 1, 1, entry 6"
    ):
        masked_lm(student, LABELS)


def test_a_loss_that_overflows_by_itself_is_returned_as_it_is():
    huge = torch.full((1, 3), 1e38)
    assert hidden_mse(huge, -huge).item() == INF


# Several classes per example


def naive_yes(z: float) -> float:
    """The logarithm of the probability that a class with the logit z applies."""
    return z - math.log1p(math.exp(z)) if z < 0 else -math.log1p(math.exp(-z))


def naive_binary(row: list[float], labels: list[float]) -> float:
    if labels[0] == -100:
        return 0.0
    return -sum(naive_yes(z if y else -z) for z, y in zip(row, labels, strict=True))


def naive_binary_kl(student: list[float], teacher: list[float], t: float) -> float:
    """Each class as two: it applies (logit z) or does not (logit 0), both softened."""
    return sum(naive_soft_kl([s, 0.0], [q, 0.0], t) for s, q in zip(student, teacher, strict=True))


def naive_sets(student, teacher, labels, alpha: float, temperature: float) -> float:
    total = 0.0
    for row, target, classes in zip(student, teacher, labels, strict=True):
        share = 0.0 if classes[0] == -100 else alpha
        soft = naive_binary_kl(row, target, temperature)
        total += share * naive_binary(row, classes) + (1 - share) * soft
    return total / len(labels)


SOME = [[1.0, 0.0, 1.0], [-100.0] * 3, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_hard_binary_equals_the_loops(dtype):
    student, labels = logits((4, 3), dtype=dtype).requires_grad_(), torch.tensor(SOME)
    per_text = hard_binary(student, labels)
    assert per_text.shape == (4,)
    assert_close(per_text, list(map(naive_binary, rows_of(student), SOME)), dtype=dtype)

    mean_over_counted(per_text, has_label(labels)).backward()

    def naive(rows):
        return sum(map(naive_binary, rows, SOME)) / 3

    assert student.grad.dtype == dtype
    assert_close(student.grad, slopes(naive, rows_of(student)), dtype=dtype)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_soft_binary_kl_equals_the_loops(shape, dtype, temperature):
    student, teacher = pair(shape, dtype)
    per_text = soft_binary_kl(student, teacher, temperature=temperature)
    assert per_text.shape == shape[:-1]
    targets = rows_of(teacher)

    def naive(rows):
        return [naive_binary_kl(*x, temperature) for x in zip(rows, targets, strict=True)]

    assert_close(per_text, naive(rows_of(student)), dtype=dtype)
    per_text.sum().backward()
    assert_close(student.grad, slopes(lambda r: sum(naive(r)), rows_of(student)), dtype=dtype)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "labels", [SOME, [[-100.0] * 3] * 4, [[0.0, 1.0, 0.0]] * 4], ids=["mixed", "none", "all"]
)
def test_distillation_of_sets_equals_the_loops(labels, alpha, temperature):
    student, teacher = pair((4, 3))
    loss = distillation_loss(
        student, teacher, torch.tensor(labels), alpha=alpha, temperature=temperature
    )
    assert loss.shape == ()

    def naive(rows):
        return naive_sets(rows, rows_of(teacher), labels, alpha, temperature)

    assert_close(loss, naive(rows_of(student)))
    loss.backward()
    assert_close(student.grad, slopes(naive, rows_of(student)))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_soft_gradient_of_sets_is_t_times_the_difference_of_the_probabilities(temperature):
    student, teacher = pair((5, 6))
    soft_binary_kl(student, teacher, temperature=temperature).sum().backward()
    difference = (student / temperature).sigmoid() - (teacher / temperature).sigmoid()
    torch.testing.assert_close(student.grad, temperature * difference.detach())
    equal = soft_binary_kl(teacher, teacher, temperature=temperature)
    torch.testing.assert_close(equal, torch.zeros_like(equal), rtol=0, atol=1e-12)


def test_losses_of_sets_by_hand():
    none_known = torch.zeros(1, 5)
    assert hard_binary(none_known, torch.ones(1, 5)).item() == pytest.approx(5 * math.log(2))
    # Probabilities 0.2 and 0.5 of the student against 0.7 and 0.5 of the teacher.
    student, teacher = torch.tensor([[0.2, 0.5]]).logit(), torch.tensor([[0.7, 0.5]]).logit()
    by_hand = 0.7 * math.log(0.7 / 0.2) + 0.3 * math.log(0.3 / 0.8)
    assert soft_binary_kl(student, teacher).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_extreme_logits_of_sets_stay_finite(dtype):
    student = torch.tensor([[1e4, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, -1e4, 1e4]], dtype=dtype)
    kl = soft_binary_kl(student, teacher, temperature=2.0)
    assert_close(kl, [2e4], dtype=dtype)  # T · |difference|, of the first class alone
    (kl.sum() + hard_binary(student, torch.tensor([[0.0, 0.0, 1.0]])).sum()).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("junk", [INF, NAN])
def test_sets_without_labels_add_nothing_whatever_their_logits(junk):
    student, labels = logits((4, 3)), torch.tensor(SOME)
    student[1] = junk
    student.requires_grad_()
    per_text = hard_binary(student, labels)
    assert per_text[1] == 0
    per_text.sum().backward()
    assert (student.grad[1] == 0).all()
    assert student.grad[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("parts", [(16, 16), (8, 8, 8, 8), (31, 1)], ids=str)
def test_a_batch_of_sets_in_parts_has_the_gradient_of_the_whole(parts):
    student, teacher = pair((32, 5))
    labels = (logits((32, 5), seed=2) > 1).float()
    labels[::3] = -100

    def gradient(sizes):
        student.grad = None
        for s, t, y in zip(*(x.split(sizes) for x in (student, teacher, labels)), strict=True):
            settings = {"alpha": 0.3, "temperature": 2.0, "n_counted": 32}
            distillation_loss(s, t, y, **settings).backward()
        return student.grad

    torch.testing.assert_close(gradient(list(parts)), gradient([32]))


def test_the_kind_of_labels_is_told_by_shape_and_type():
    one, several = torch.tensor([1, -100, 2, 0]), torch.tensor(SOME)
    words = torch.tensor([[1, -100], [0, 2]])
    assert [is_multi_label(labels) for labels in (one, several, words)] == [False, True, False]
    assert has_label(one).tolist() == has_label(several).tolist() == [True, False, True, True]
    assert has_label(words).tolist() == [[True, False], [True, True]]
    student = logits((4, 3))
    assert torch.equal(hard_loss(student, one), hard_cross_entropy(student, one))
    assert torch.equal(hard_loss(student, several), hard_binary(student, several))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([[0.0, 1.0, 2.0]]), "(?s)is 2, neither 0 nor 1.*position 0, class 2"),
        (torch.tensor([[0.0, 0.5, 1.0]]), "is 0.5, neither"),
        (torch.tensor([[0.0, NAN, 1.0]]), "is nan, neither"),
        (torch.tensor([[1.0, -100.0, 1.0]]), "(?s)is -100, neither.*class 1"),
        (torch.tensor([[-100.0, -100.0, 1.0]]), "(?s)is -100, neither.*class 0"),
        (torch.tensor([[1.0, 0.0]]), r"shape \(1, 2\), the logits \(1, 3\)"),
        (torch.tensor([1.0, 0.0, 1.0]), r"shape \(3,\), the logits \(1, 3\)"),
        (torch.tensor([[1, 0, 1]]), "of type torch.int64"),
    ],
)
def test_labels_of_sets_that_are_refused(labels, words):
    with pytest.raises(DataError, match=words):
        hard_binary(logits((1, 3)), labels)


def test_a_distillation_of_sets_refuses_what_fits_neither_kind_of_label():
    student, teacher = pair((4, 3))
    settings = {"alpha": 0.5, "temperature": 2.0}
    for labels in (torch.ones(4, 3, dtype=torch.int64), torch.ones(4), torch.ones(4, 2)):
        with pytest.raises(DataError, match="labels"):
            distillation_loss(student, teacher, labels, **settings)
    with pytest.raises(ModelError, match="3 classes, the teacher 4"):
        soft_binary_kl(student, logits((4, 4)))
    with pytest.raises(DataError, match="temperature is 0"):
        soft_binary_kl(student, teacher, temperature=0)
