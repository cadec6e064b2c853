"""docs/full_run.md is what its tool writes, and its arithmetic is what others count."""

from __future__ import annotations

import copy
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, DistilBertConfig

from course_utils.distill import mlm_trainer, pretrain, trainer
from course_utils.distill.pretrain import PretrainRecipe, distil_mlm
from course_utils.errors import CourseError
from course_utils.machine import describe
from course_utils.models.anatomy import count, skeleton
from course_utils.models.mlm import head_sees_only
from course_utils.models.student import student_from_teacher

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import plan_full_run as plan  # noqa: E402 - it lives in tools/, which is no package

RESULTS = ROOT / "docs" / "results"
T4 = plan.MACHINES[0]


@pytest.fixture
def measured() -> dict:
    return json.loads((RESULTS / "full_run.json").read_text(encoding="utf-8"))


@pytest.fixture
def on_gpu() -> dict:
    row = {"kl_positions": "masked", "compile": False, "peak_memory_mb": 1.0}
    parts = {
        "matrix_rate": 600e12,
        "step a": row | {"batch_size": 64, "tokens_per_s": 5e5, "mfu": 0.40},
        "step b": row | {"batch_size": 128, "tokens_per_s": 6e5, "mfu": 0.47},
        "step c": row | {"batch_size": 256, "trouble": "out of memory"},
        "step d": row | {"kl_positions": "all", "batch_size": 8, "tokens_per_s": 9e5, "mfu": 0.9},
    }
    return {"about": {"machine": {"device_name": "A card"}}, "date": "2026-01-02", "parts": parts}


def test_the_page_is_what_the_tool_writes(tmp_path):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    for file in RESULTS.glob("*.json"):
        (tmp_path / "docs" / "results" / file.name).write_bytes(file.read_bytes())
    written = plan.write(tmp_path).read_text(encoding="utf-8")
    assert written == (ROOT / "docs" / "full_run.md").read_text(encoding="utf-8")


def test_without_a_gpu_its_rows_are_called_planned(measured):
    page = plan.page(measured, None)
    assert "**planned, not measured**" in page
    assert "`make gpu-results` measures your GPU" in page
    use = next(row["mfu"] for row in measured["rows"] if row["kl_positions"] == "masked")
    assert f"| machine | peak of a card | {use:.0%} (our CPU's) | 20% | 35% | 50% |" in page


def test_a_gpu_that_was_measured_takes_the_place_of_the_cpu(measured, on_gpu):
    page = plan.page(measured, on_gpu)
    assert "planned, not measured" not in page
    for use in (47, 90):  # masked, all
        assert f"| machine | peak of a card | {use}% (A card) | 20% | 35% | 50% |" in page
    hours = plan.tokens(plan.TOKENS_PER_WORD) / 6e5 / 3600
    assert "`masked`, batch 128 × 128: 600,000 tokens/s, use 47% of 600 TFLOP/s" in page
    assert f"the whole run in {hours:,.0f} hours (**C**)" in page


def test_nothing_measured_and_unknown_words_are_refused(tmp_path, monkeypatch):
    with pytest.raises(CourseError, match="Nothing is measured yet"):
        plan.write(tmp_path)
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="Nothing is measured yet"):
        plan.main([])
    with pytest.raises(SystemExit, match="give nothing, or measure"):
        plan.main(["--price"])


@pytest.mark.parametrize("way", ["masked", "all"])
@pytest.mark.parametrize("length", [40, 120])
def test_operations_are_what_torch_counts_for_bert_base(way, length):
    """One block, no weights: the heads see 15 % of its tokens, or all."""
    teacher, student = (
        skeleton(config, kind=AutoModelForMaskedLM) for config in (BertConfig(), DistilBertConfig())
    )
    ids = torch.zeros(1, length, dtype=torch.int64, device="meta")
    n_seen = length if way == "all" else length * 15 // 100
    seen = torch.zeros(n_seen, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad(), head_sees_only(teacher, seen):
            teacher(ids)
        with head_sees_only(student, seen):
            student.train()(ids).logits.sum().backward()
    assert plan.operations(way, length) * length == pytest.approx(counter.get_total_flops())


def test_operations_are_near_two_and_six_for_each_weight():
    """Kaplan et al. 2020: 2 for each weight forward, 6 with backward; attention comes on top."""
    rule = 0
    for config, each in ((BertConfig(), 2), (DistilBertConfig(), 6)):
        parts = count(config, kind=AutoModelForMaskedLM)
        looked_up = parts["position embeddings"] + parts["type embeddings"]  # words: the decoder
        rule += each * (sum(parts.values()) - looked_up)
    assert 1 < plan.operations("all", 128) / rule < 1.03
    assert 1 < plan.operations("all", 512) / plan.operations("all", 128) < 1.1
    assert plan.operations("masked", 128) < 0.75 * plan.operations("all", 128)


def test_hours_are_operations_through_the_rate():
    assert plan.hours(3600 * 65e12 * 0.5, T4, 0.5) == pytest.approx(1)
    h100 = plan.MACHINES[-1]
    assert plan.hours(1e18, h100, 0.5) == pytest.approx(1e18 / (8 * 989e12 * 0.5 * 3600))
    assert plan.tokens(1.0) == 3 * 3.3e9


def test_the_batch_that_fits_fits_and_its_double_does_not():
    for machine in plan.MACHINES:
        for length in plan.LENGTHS:
            n = plan.largest_batch(machine, length, 42.0)
            fixed, each = sum(plan.fixed_bytes().values()), plan.block_bytes(length, 42.0)
            assert fixed + n * each <= 0.9e9 * machine.memory_gb < fixed + 2 * n * each
            assert math.log2(n).is_integer()


def test_a_checkpoint_is_as_large_as_the_plan_says(tmp_path, monkeypatch):
    here = replace(describe(), device="cpu", dtype="float32")
    for module in (trainer, mlm_trainer, pretrain):
        monkeypatch.setattr(module, "describe", lambda: here)
    sizes = {"vocab_size": 4000, "hidden_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 128, "max_position_embeddings": 16}
    torch.manual_seed(0)
    teacher = BertForMaskedLM(BertConfig(**sizes)).eval()
    student = student_from_teacher(teacher, layers=1, keep_token_types=False)
    monkeypatch.setattr(plan, "TEACHER", teacher.config)
    monkeypatch.setattr(plan, "STUDENT", copy.deepcopy(student.config))
    row = {"input_ids": torch.arange(8), "labels": torch.arange(8)}
    recipe = PretrainRecipe(steps=1, batch_size=2)
    distil_mlm(student, teacher, [row] * 2, recipe, out=tmp_path / "run", progress=False)
    files = (tmp_path / "run" / "checkpoint-1").iterdir()
    assert sum(file.stat().st_size for file in files) == pytest.approx(
        plan.checkpoint_bytes(), rel=0.05
    )


def test_what_a_layer_keeps_is_near_a_count_by_hand(measured):
    """For each number of a layer's input, in 16 bits: queries, keys, values, what attention makes
    of them, the inputs of five maps, two of them four times as wide; 32 bits for the two norms."""
    assert 2 * (3 + 1 + 1 + 1 + 1 + 4 + 4) <= measured["kept_in_a_layer"] < 60
    assert plan.kept_in_a_layer(length=32) == pytest.approx(measured["kept_in_a_layer"], rel=0.3)


def test_words_are_what_has_a_letter_or_a_digit():
    class ByLetter:
        def __call__(self, texts, **options):
            return {"input_ids": [list(text.replace(" ", "")) for text in texts]}

    assert plan.per_word(ByLetter(), ["ab , c3 - d", "x"]) == pytest.approx(8 / 4)
