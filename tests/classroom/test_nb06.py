"""Exercises of notebook 06: right answers written another way are right, real slips are named."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils.classroom.checks import exercises
from course_utils.distill import losses
from course_utils.measure.calibration import calibration

MINE = {name: exercise for name, exercise in exercises().items() if exercise.notebook == "06"}


# Right answers, written in other ways


def clean_with_a_dict(train, test):
    def key(text):
        return tuple(text.casefold().split())

    first = {}
    for text in train:
        first.setdefault(key(text), text)
    return [text for text in first.values() if key(text) not in {key(other) for other in test}]


def cache_by_sorting(teacher, batches, n_texts):
    teacher.eval()
    rows = [row for numbers, _ in batches for row in numbers]
    with torch.inference_mode():
        said = torch.cat([teacher(ids) for _, ids in batches])
    return said[np.argsort(rows)].clone()


def cache_with_detach(teacher, batches, n_texts):
    texts = {}
    for rows, ids in batches:
        texts |= dict(zip(rows, teacher.train(False)(ids).detach(), strict=True))
    return torch.stack([texts[row] for row in range(n_texts)])


def mixed_with_the_library(student_logits, teacher_logits, labels, alpha, temperature):
    return losses.distillation_loss(
        student_logits, teacher_logits, labels, alpha=alpha, temperature=temperature
    )


def mixed_in_a_loop(student_logits, teacher_logits, labels, alpha, temperature):
    total = torch.zeros(())
    for s, t, label in zip(student_logits, teacher_logits, labels, strict=True):
        p, q = (t / temperature).softmax(-1), (s / temperature).softmax(-1)
        soft = temperature**2 * (p * (p / q).log()).sum()
        total += soft if label < 0 else alpha * -s.log_softmax(-1)[label] + (1 - alpha) * soft
    return total / len(labels)


def epochs_with_floor_division(n_texts, batch_size, steps):
    return steps / -(-n_texts // batch_size)


def ece_with_the_library(probs, labels, n_bins):
    return calibration(probs.double().numpy(), labels.numpy(), n_bins).ece


def ece_bin_by_bin(probs, labels, n_bins):
    confidence, chosen = probs.max(1)
    total = 0.0
    for low in np.arange(n_bins) / n_bins:
        inside = (confidence > low) & (confidence <= low + 1 / n_bins)
        if inside.sum():
            gap = (chosen[inside] == labels[inside]).float().mean() - confidence[inside].mean()
            total += inside.float().mean() * gap.abs()
    return total


def choose_with_loops(runs):
    best = (-1.0, "", 0)
    for name, run in runs.items():
        for epoch, accuracy in enumerate(run["dev"]):
            if accuracy > best[0]:
                best = (accuracy, name, epoch)
    return best[1], best[2], runs[best[1]]["test"][best[2]]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("clean_train", clean_with_a_dict),
        ("cache_logits", cache_by_sorting),
        ("cache_logits", cache_with_detach),
        ("partly_labelled_loss", mixed_with_the_library),
        ("partly_labelled_loss", mixed_in_a_loop),
        ("epochs_for", epochs_with_floor_division),
        ("calibration_error", ece_with_the_library),
        ("calibration_error", ece_bin_by_bin),
        ("choose_run", choose_with_loops),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = MINE[name].judge(answer)
    assert verdict.state == "right", verdict.why


# Slips as learners write them


def clean_with_set_difference(train, test):
    return sorted(set(train) - set(test))


def clean_only_across(train, test):
    taken = {" ".join(text.lower().split()) for text in test}
    return [text for text in train if " ".join(text.lower().split()) not in taken]


def cache_by_appending(teacher, batches, n_texts):
    teacher.eval()
    with torch.no_grad():
        return torch.cat([teacher(ids) for _, ids in batches])


def cache_without_eval(teacher, batches, n_texts):
    logits = torch.zeros(n_texts, teacher.table.shape[1])
    with torch.no_grad():
        for rows, ids in batches:
            logits[rows] = teacher(ids)
    return logits


def cache_without_no_grad(teacher, batches, n_texts):
    teacher.eval()
    logits = torch.zeros(n_texts, teacher.table.shape[1])
    for rows, ids in batches:
        logits[rows] = teacher(ids)
    return logits


def mixed_without_t(student_logits, teacher_logits, labels, alpha, temperature, *, power=0):
    hard = F.cross_entropy(student_logits, labels, reduction="none")
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, -1),
        F.softmax(teacher_logits / temperature, -1),
        reduction="none",
    ).sum(-1)
    weight = alpha * (labels != -100)
    return (weight * hard + (1 - weight) * soft * temperature**power).mean()


def mixed_with_one_alpha(student_logits, teacher_logits, labels, alpha, temperature):
    hard = F.cross_entropy(student_logits, labels, reduction="none")
    soft = losses.soft_kl(student_logits, teacher_logits, temperature=temperature)
    return (alpha * hard + (1 - alpha) * soft).mean()


def ece_as_a_plain_mean(probs, labels, n_bins):
    confidence, chosen = probs.max(1)
    place = np.digitize(confidence.numpy(), np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    right = (chosen == labels).numpy()
    return np.mean(
        [abs(right[place == k].mean() - confidence.numpy()[place == k].mean()) for k in set(place)]
    )


def choose_by_test(runs):
    name = max(runs, key=lambda name: max(runs[name]["test"]))
    return name, int(np.argmax(runs[name]["test"])), max(runs[name]["test"])


def choose_last(runs):
    name = max(runs, key=lambda name: runs[name]["dev"][-1])
    return name, len(runs[name]["dev"]) - 1, runs[name]["test"][-1]


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        ("clean_train", clean_only_across, "duplicates_within_train"),
        ("cache_logits", cache_by_appending, "rows_as_they_came"),
        ("cache_logits", cache_without_eval, "dropout_on"),
        ("cache_logits", cache_without_no_grad, "graph_kept"),
        ("partly_labelled_loss", mixed_without_t, "no_t_squared"),
        ("partly_labelled_loss", mixed_with_one_alpha, "unlabelled_count_less"),
        ("epochs_for", lambda n, batch_size, steps: steps, "equal_epochs"),
        ("epochs_for", lambda n, b, steps: steps * b / n, "part_of_a_step"),
        ("calibration_error", ece_as_a_plain_mean, "bins_not_weighed"),
        ("choose_run", choose_by_test, "test_set_searched"),
        ("choose_run", choose_last, "the_last_epoch"),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = MINE[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake), verdict.why


def test_a_slip_nobody_foresaw_shows_a_case():
    verdict = MINE["clean_train"].judge(clean_with_set_difference)
    assert (verdict.state, verdict.mistake) == ("wrong", None)
    assert "expected" in verdict.why


def test_the_toy_teachers_dropout_is_the_same_noise_for_the_same_questions():
    one, other = (next(iter(MINE["cache_logits"].cases())) for _ in range(2))
    said = [teacher(batches[0][1]) for teacher, batches, _ in (one, other)]
    assert torch.equal(*said)
    assert not torch.equal(said[0], one[0].eval()(one[1][0][1]))


def test_the_notebooks_epochs_give_the_trainers_steps():
    """The arithmetic of `Trainer`: the steps of an epoch are those of its loader, rounded up."""
    for n_texts, batch_size, steps in MINE["epochs_for"].cases():
        epochs = MINE["epochs_for"].reference(n_texts, batch_size, steps)
        in_an_epoch = len(range(0, n_texts, batch_size))
        assert math.ceil(epochs * in_an_epoch) == steps
