"""`course bench`: its rows are a contract, and all ways do the work they claim to do."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from tiny import TEXTS
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from course_utils import bench
from course_utils.bench import distill, loss
from course_utils.errors import CourseError, OutputError
from course_utils.models.student import student_from_teacher

KEYS = [
    "work",
    "unit",
    "ours",
    "baseline",
    "ratio",
    "peak_memory_mb",
    "baseline_peak_memory_mb",
    "agreement",
    "baseline_agreement",
]


@pytest.mark.weights
def test_distill_measures_every_way_and_writes_the_rows_it_prints(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    rows = bench.bench("distill", json_file=tmp_path / "new" / "bench.json")
    names = ["a plain Trainer"] + ["TextBrewer"] * bool(importlib.util.find_spec("textbrewer"))
    work = "distill pydocs into 3 layers, 3 epochs of 64, against"
    assert [row["work"] for row in rows] == [f"{work} {name}" for name in names]
    for row in rows:
        assert list(row) == KEYS
        assert row["ratio"] == pytest.approx(row["ours"] / row["baseline"], rel=0.05)
        assert min(row["peak_memory_mb"], row["baseline_peak_memory_mb"]) > 100
        assert 0.5 < min(row["agreement"], row["baseline_agreement"]) <= 1
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == rows
    said = capfd.readouterr()
    assert "measuring: ours" in said.out
    assert "Warning" not in said.err


MEASURED = {
    "teacher": {},
    "ours": {
        "data": "sst2",
        "n_texts": 3200,
        "texts_per_s": 350.04,
        "peak_memory_mb": 1500.4,
        "agreement": 0.93204,
    },
    "baseline": {"texts_per_s": 50.01, "peak_memory_mb": 1300.0, "agreement": 0.93},
    "textbrewer": {"texts_per_s": 40.0, "peak_memory_mb": 1400.0, "agreement": 0.9},
}


def test_the_rows_of_distill_are_what_was_measured_and_the_ratio_to_each_baseline():
    trainer, textbrewer = distill.rows(MEASURED)
    assert dict(zip(KEYS, trainer.values(), strict=True)) == {
        "work": "distill sst2 into 3 layers, 3 epochs of 3200, against a plain Trainer",
        "unit": "texts/s",
        "ours": 350.0,
        "baseline": 50.0,
        "ratio": 7.0,
        "peak_memory_mb": 1500,
        "baseline_peak_memory_mb": 1300,
        "agreement": 0.932,
        "baseline_agreement": 0.93,
    }
    assert textbrewer["ratio"] == 8.75
    assert textbrewer["work"].endswith("against TextBrewer")


def test_a_baseline_that_is_not_installed_is_left_out_in_words(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    left_out = distill.measure("textbrewer")
    assert left_out == {}
    assert "textbrewer is not installed; install it with pip" in capsys.readouterr().err
    (row,) = distill.rows(MEASURED | {"textbrewer": left_out})
    assert row["work"].endswith("a plain Trainer")


@pytest.mark.weights
def test_texts_held_out_are_not_trained_on(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    task = distill._task()
    assert (len(task.train), len(task.test)) == (64, 64)
    assert not set(task.train["text"]) & set(task.test["text"])


@pytest.mark.parametrize("way", ["ours", "baseline", "textbrewer"])
def test_each_way_brings_a_student_of_three_layers_closer_to_its_teacher(
    way, tiny_teacher_folder, monkeypatch
):
    if way == "textbrewer":
        pytest.importorskip("textbrewer", reason="installed for the benchmark only")
    monkeypatch.setattr(distill, "EPOCHS", 12)
    monkeypatch.setattr(distill, "BATCH_SIZE", 8)
    monkeypatch.setattr(distill, "LEARNING_RATE", 3e-3)
    teacher = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    texts = [" ".join(TEXTS[k % 8].split()[k % 3 :]) or "the" for k in range(24)]
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    batch = tokenizer(texts, padding=True, return_tensors="pt")

    def distance(student):
        with torch.no_grad():
            logits = [m.cpu().eval()(**batch).logits.log_softmax(-1) for m in (student, teacher)]
        return F.kl_div(*logits, reduction="batchmean", log_target=True).item()

    labels = teacher.eval()(**batch).logits.argmax(-1).tolist()
    start = distance(student_from_teacher(teacher, layers=distill.LAYERS))
    student = getattr(distill, way)(teacher, tokenizer, texts, labels)
    assert student.config.num_hidden_layers == distill.LAYERS
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())
    assert distance(student) < 0.7 * start


LOSS_KEYS = [
    "name",
    "work",
    "seconds",
    "peak_memory_mb",
    "time_ratio",
    "memory_ratio",
    "gradient_difference",
]


def test_loss_measures_the_chunked_way_against_the_plain_one(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    rows = bench.bench("loss", json_file=tmp_path / "bench.json")
    plain, chunked = rows
    assert list(plain) == list(chunked) == LOSS_KEYS
    assert (plain["name"], chunked["name"]) == ("plain", "chunked")
    assert plain["work"] == chunked["work"] == "soft loss and gradients, N = 512, V = 2048, H = 64"
    assert plain["time_ratio"] == plain["memory_ratio"] == 1.0
    assert plain["gradient_difference"] == 0.0
    assert 0 < chunked["gradient_difference"] < 1e-4
    assert min(row[key] for row in rows for key in ("seconds", "peak_memory_mb")) > 0
    assert json.loads((tmp_path / "bench.json").read_text()) == rows
    assert "measuring: chunked" in capfd.readouterr().out


def test_the_rows_of_loss_are_what_was_measured_and_its_ratio_to_plain(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    measured = {
        "plain": {"seconds": 4.0, "peak_memory_mb": 2500.0, "gradient_difference": 0.0},
        "chunked": {"seconds": 3.0, "peak_memory_mb": 500.0, "gradient_difference": 2.345e-7},
    }
    _, chunked = loss.rows(measured)
    assert list(chunked.values()) == [
        "chunked",
        "soft loss and gradients, N = 4096, V = 30522, H = 384",
        3.0,
        500,
        0.75,
        0.2,
        2.3e-7,
    ]


PEAK = """
import numpy as np
from course_utils.bench import loss

print(loss._peak_memory_mb(lambda: np.ones(400_000_000 // 8).sum(), "cpu"))
"""


def test_the_peak_of_a_step_is_never_understated():
    """In a process of its own, as in the benchmark: this one may have kept what was freed."""
    found = float(subprocess.check_output([sys.executable, "-c", PEAK]))
    assert 395 <= found < 450


def test_a_folder_that_cannot_hold_the_rows_is_refused_before_anything_is_timed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(bench, "_in_own_process", lambda what, way: pytest.fail("it was timed"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        bench.bench("distill", json_file=tmp_path / "file" / "bench.json")


def test_a_process_that_fails_ends_the_benchmark(monkeypatch):
    monkeypatch.setattr(bench.sys, "executable", "false")
    with pytest.raises(CourseError, match="'teacher' ended with 1"):
        bench.bench("distill")


def test_a_piece_of_work_without_a_benchmark_names_those_there_are():
    with pytest.raises(CourseError, match=r"'sleep'(?s:.*)distill or loss"):
        bench.bench("sleep")
