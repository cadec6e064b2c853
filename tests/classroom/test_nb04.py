"""Exercises of notebook 04: right answers written another way are right, real slips are named."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from course_utils.classroom.checks import exercises
from course_utils.models.student import layer_map, student_from_teacher

MINE = [exercise for exercise in exercises().values() if exercise.notebook == "04"]


def spread_with_numpy(n_teacher, n_student):
    return np.linspace(0, n_teacher - 1, n_student).round().astype(int)


def spread_as_a_list(n_teacher, n_student):
    steps = max(1, n_student - 1)
    return [int(i * (n_teacher - 1) / steps + 0.5) for i in range(n_student)]


def agreement_in_a_loop(student_logits, teacher_logits):
    pairs = zip(student_logits.tolist(), teacher_logits.tolist(), strict=True)
    same = [s.index(max(s)) == t.index(max(t)) for s, t in pairs]
    share = sum(same) / len(same)
    error = 1.96 * (share * (1 - share) / len(same)) ** 0.5
    return [share, share - error, share + error]


def agreement_in_tensors(student_logits, teacher_logits):
    same = (student_logits.softmax(-1).argmax(-1) == teacher_logits.argmax(-1)).float()
    error = 1.96 * same.std(correction=0) / len(same) ** 0.5
    return same.mean(), same.mean() - error, same.mean() + error


def copied_layer_by_layer(weights, layers):
    copied = {n: w for n, w in weights.items() if "encoder.layer." not in n}
    for new, old in enumerate(layers):
        start = f"encoder.layer.{old}."
        for name in weights:
            if name.startswith(start):
                copied[f"encoder.layer.{new}." + name.removeprefix(start)] = weights[name].clone()
    return copied


def folded_with_a_lookup(positions, token_types):
    return positions + token_types[torch.zeros(len(positions), dtype=torch.long)]


def counted_by_building(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    config = BertConfig(
        vocab_size=n_words,
        max_position_embeddings=n_positions,
        num_hidden_layers=teacher_layers,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_attention_heads=1,
    )
    with torch.device("meta"):
        teacher = BertModel(config)
        config.num_hidden_layers = student_layers
        shallow = BertModel(config, add_pooling_layer=False)
    count = shallow.num_parameters() - 2 * hidden_size
    return count, count / teacher.num_parameters()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("spread_layers", spread_with_numpy),
        ("spread_layers", spread_as_a_list),
        ("agreement_interval", agreement_in_a_loop),
        ("agreement_interval", agreement_in_tensors),
        ("copy_layers", copied_layer_by_layer),
        ("fold_types", folded_with_a_lookup),
        ("student_size", counted_by_building),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = exercises()[name].judge(answer)
    assert verdict.state == "right", verdict.why


def renamed_with_replace(weights, layers):
    """As a learner writes it: every name is tried against every layer, without the dot."""
    copied = {n: w for n, w in weights.items() if not n.startswith("encoder.layer.")}
    for new, old in enumerate(layers):
        for name, weight in weights.items():
            if f"layer.{old}" in name:
                copied[name.replace(f"layer.{old}", f"layer.{new}")] = weight
    return copied


def sized_by_hand(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    h = hidden_size
    layer = 4 * h * h + 8 * h * h
    norms = 2 * h + 4 * h * student_layers
    student = (n_words + n_positions) * h + student_layers * layer + norms
    norms = 2 * h + 4 * h * teacher_layers
    return student, student / (
        (n_words + n_positions + 2) * h + teacher_layers * layer + norms + h * h
    )


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        ("spread_layers", lambda t, s: list(range(t))[:: t // s], "every_kth"),
        ("spread_layers", lambda t, s: [round(i * t / s) for i in range(s)], "every_kth"),
        (
            "spread_layers",
            lambda t, s: [i * (t - 1) // max(s - 1, 1) for i in range(s)],
            "rounds_down",
        ),
        ("spread_layers", lambda t, s: list(range(s)), "the_first_ones"),
        ("copy_layers", renamed_with_replace, "prefix_without_its_dot"),
        ("fold_types", lambda p, t: p + t[1], "second_row"),
        ("fold_types", lambda p, t: p, "dropped"),
        ("student_size", sized_by_hand, "without_biases"),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = exercises()[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake)


def test_a_table_changed_in_place_is_found_out():
    def in_place(positions, token_types):
        positions += token_types[0]
        return positions

    verdict = exercises()["fold_types"].judge(in_place)
    assert verdict.state == "wrong"
    assert "changes `positions`" in verdict.why


def test_the_references_are_what_the_library_does():
    spread = exercises()["spread_layers"].reference
    for teacher, student in ((12, 6), (12, 4), (6, 2), (6, 6), (5, 1)):
        assert spread(teacher, student) == layer_map(teacher, student)
    sizes = {"num_hidden_layers": 4, "hidden_size": 8, "num_attention_heads": 2}
    teacher = BertModel(BertConfig(vocab_size=20, intermediate_size=32, **sizes))
    student = student_from_teacher(teacher, layers=(3, 1))
    copied = exercises()["copy_layers"].reference(teacher.state_dict(), (3, 1))
    assert copied.keys() == student.state_dict().keys()
    assert all(copied[name].equal(weight) for name, weight in student.state_dict().items())
    small = student_from_teacher(teacher, layers=2, keep_token_types=False)
    tables = teacher.embeddings
    folded = exercises()["fold_types"].reference(
        tables.position_embeddings.weight, tables.token_type_embeddings.weight
    )
    assert small.embeddings.position_embeddings.weight.equal(folded)
    size, share = exercises()["student_size"].reference(20, 512, 4, 2, 8)
    assert size == small.num_parameters()
    assert share == size / teacher.num_parameters()


def test_the_real_sizes_are_those_of_the_paper():
    size, share = exercises()["student_size"].reference(30522, 512, 12, 6, 768)
    assert size == 66_362_880
    assert round(size / share) == 109_482_240
