"""Throughput: what is counted, what it costs, and how fast it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM

from course_utils.distill import throughput
from course_utils.distill.throughput import (
    ATTENDED,
    LABELLED,
    PAIRS,
    PLACES,
    Meter,
    arithmetic,
    count,
    matrix_rate,
)
from course_utils.models.student import student_from_teacher

LABELS = torch.tensor([[-100, 7, -100, 8, -100], [9, -100, -100, -100, -100]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])


@pytest.fixture
def teacher() -> BertForMaskedLM:
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32}
    depth = {"num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 16}
    return BertForMaskedLM(BertConfig(**sizes, **depth, attn_implementation="eager")).eval()


def test_a_batch_is_counted_with_and_without_padding():
    counts = count({"labels": LABELS, "attention_mask": MASK})
    assert counts.dtype == torch.int64
    assert counts.tolist() == [3, 7, 35, 10]
    assert count({"labels": LABELS}).tolist() == [3, 10, 50, 10]
    assert [LABELLED, ATTENDED, PAIRS, PLACES] == [0, 1, 2, 3]


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("length", [3, 11])
def test_arithmetic_is_what_torch_counts_in_a_step(teacher, family, length):
    """Heads at all tokens of a batch without padding; the teacher forward, the student twice more.

    torch counts a backward pass as two forward passes where every product needs both gradients:
    all do, as the first one's input, the embeddings, is trained.
    """
    student = student_from_teacher(teacher, layers=2, keep_token_types=family == "bert").train()
    ids = torch.randint(50, (4, length))
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            teacher(ids)
        student(ids).logits.sum().backward()
    cost = arithmetic(student, teacher, heads_at=ATTENDED)
    counts = count({"labels": torch.full_like(ids, -100)}).tolist()
    total = sum(n * each for n, each in zip(counts, cost, strict=True))
    assert total == counter.get_total_flops()


def test_a_head_at_the_labels_costs_as_many_times_as_there_are_labels(teacher):
    student = copy.deepcopy(teacher)
    everywhere = arithmetic(student, teacher, heads_at=ATTENDED)
    at_labels = arithmetic(student, teacher, heads_at=LABELLED)
    head = 2 * 16 * 16 + 2 * 16 * 50
    assert at_labels[LABELLED] == 4 * head  # three passes of the student, one of the teacher
    assert everywhere[ATTENDED] - at_labels[ATTENDED] == 4 * head
    alone = arithmetic(student, None, heads_at=LABELLED)
    assert [4 * a for a in alone] == [3 * b for b in at_labels]


def test_the_rate_of_matrix_products_is_measured_once(monkeypatch):
    matrix_rate.cache_clear()
    sides = []
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: sides.append(a.shape) or product(a[:9], b))
    rate = matrix_rate("float32", "cpu")
    assert rate > 1e9
    assert sides == [(2048, 2048)] * 10
    assert matrix_rate("float32", "cpu") == rate
    assert len(sides) == 10
    matrix_rate.cache_clear()


def test_a_meter_reads_what_was_added_since_its_start(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    meter = Meter([1.0, 2.0, 3.0, 0.0], rate=1000.0)
    meter.start()
    now[0] = 101.0
    meter.start()  # runs already
    meter.add(torch.tensor([3, 7, 35, 10]))
    meter.add(torch.tensor([1, 10, 50, 10]))
    now[0] = 104.0
    read = meter.read()
    assert read["tokens_per_s"] == 17 / 4
    assert read["padding_share"] == pytest.approx(3 / 20)
    assert read["mfu"] == pytest.approx((4 + 2 * 17 + 3 * 85) / 4 / 1000)
    meter.reset()
    meter.start()
    meter.add(torch.tensor([0, 5, 25, 5]))
    now[0] = 105.0
    assert meter.read()["tokens_per_s"] == 5
