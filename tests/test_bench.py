"""`course bench`: its rows are a contract, and both ways do the work they claim to do."""

from __future__ import annotations

import json

import pytest

from course_utils import bench
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


def test_a_folder_that_cannot_hold_the_rows_is_refused_before_anything_is_timed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(bench, "_in_own_process", lambda way: pytest.fail("it was timed"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        bench.bench("distill", json_file=tmp_path / "file" / "bench.json")


def test_a_process_that_fails_ends_the_benchmark(monkeypatch):
    monkeypatch.setattr(bench.sys, "executable", "false")
    with pytest.raises(CourseError, match="'ours' ended with 1"):
        bench.bench("distill")
