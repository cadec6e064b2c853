"""`course bench`: its rows are a contract, and all ways do the work they claim to do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from course_utils import bench
from course_utils.bench import loss
from course_utils.errors import CourseError, OutputError

KEYS = [
    "work",
    "unit",
    "ours",
    "baseline",
    "ratio",
    "peak_memory_mb",
    "baseline_peak_memory_mb",
]


@pytest.mark.weights
def test_distill_measures_both_ways_and_writes_the_row_it_prints(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    rows = bench.bench("distill", json_file=tmp_path / "new" / "bench.json")
    (row,) = rows
    assert list(row) == KEYS
    assert row["work"] == "distill reviews into 3 layers, 3 epochs of 64"
    assert row["ratio"] == pytest.approx(row["ours"] / row["baseline"], rel=0.05)
    assert min(row["peak_memory_mb"], row["baseline_peak_memory_mb"]) > 100
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == rows
    said = capfd.readouterr()
    assert "measuring: ours" in said.out
    assert "Warning" not in said.err


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
    with pytest.raises(CourseError, match="'ours' ended with 1"):
        bench.bench("distill")


def test_a_piece_of_work_without_a_benchmark_names_those_there_are():
    with pytest.raises(CourseError, match=r"'sleep'(?s:.*)distill or loss"):
        bench.bench("sleep")
