"""`make gpu-results`: the whole path with tiny sizes, interruptions, memory that runs out."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from tiny import TEXTS, write_classifier

from course_utils.errors import CourseError
from course_utils.machine import describe

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import gpu_results  # noqa: E402 - it lives in tools/, which is no package
from gpu_results import MODELS, SIZES, Record, page  # noqa: E402

STEPS = [f"step {way} False {batch}" for way in ("masked", "all") for batch in (2, 4)]
BENCH = [{"way": "masked", "tokens_per_s": 6000}, {"way": "baseline", "tokens_per_s": 1000}]


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """`measure` with a corpus and a tokenizer of its own, in the smoke profile."""
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_results.bench, "BENCHMARKS", ("mlm",))
    monkeypatch.setattr(gpu_results.bench, "bench", lambda what: BENCH)
    write_classifier(tmp_path / "model")  # for its tokenizer
    (tmp_path / "texts").mkdir()
    for split, n in (("train", 30), ("test", 10)):
        (tmp_path / "texts" / f"{split}.txt").write_text("\n\n".join(TEXTS * n))
    places = {"corpus": tmp_path / "texts", "model": tmp_path / "model", "work": tmp_path / "work"}
    return lambda: gpu_results.measure(tmp_path / "results", minutes=0.002, **places)


def numbers(row: dict) -> list[float]:
    return [value for value in row.values() if isinstance(value, float)]


def test_the_whole_path_with_an_interruption(measure, tmp_path, monkeypatch):
    """Stopped as the last student is about to learn; then started again."""
    learn, learned = gpu_results.distil_mlm, []

    def interrupted(*args, out=None, **options):
        if out and out.name == "student without teacher":
            raise KeyboardInterrupt
        return learn(*args, out=out, **options)

    def noted(*args, out=None, **options):
        learned.append(out and out.name)
        return learn(*args, out=out, **options)

    monkeypatch.setattr(gpu_results, "distil_mlm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure()
    file = tmp_path / "results" / "gpu.json"
    first = json.loads(file.read_text())
    assert not first["complete"]
    assert list(first["parts"]) == ["matrix_rate", *STEPS, "plan", *MODELS[:3]]
    assert "Not finished: `make gpu-results` goes on" in file.with_suffix(".md").read_text()

    monkeypatch.setattr(gpu_results, "distil_mlm", noted)
    content = measure()
    assert learned == ["teacher", "student without teacher"]  # the teacher from its checkpoint
    assert content == json.loads(file.read_text())
    assert content["complete"]
    parts = content["parts"]
    assert {name: parts[name] for name in first["parts"]} == first["parts"]
    assert set(parts) - set(first["parts"]) == {"student without teacher", "bench"}
    assert content["about"]["machine"]["cpu"] == describe().cpu
    assert content["about"]["versions"]["torch"] == torch.__version__
    assert all(n > 0 for name in STEPS for n in numbers(parts[name]))
    plan = parts["plan"]
    assert plan["batch_size"] * plan["accumulation"] == SIZES["smoke"].batch_size
    assert plan["student_steps"] == max(1, plan["steps"] // 2)
    for name in MODELS:
        for score in ("perplexity", "accuracy", "agreement"):
            low, mean, high = (parts[name][score + end] for end in ("_low", "", "_high"))
            assert low <= mean <= high
    assert parts["teacher"]["agreement"] == 1

    text = file.with_suffix(".md").read_text()
    assert text == page(content)
    assert "Not finished" not in text
    for row in (parts[name] for name in STEPS):
        speed = f"{row['tokens_per_s']:,.0f}"
        assert f"| {row['kl_positions']} | no | {row['batch_size']} | {speed} |" in text
    assert "| masked | 6000 |" in text
    for name in MODELS:
        assert f"| {name} | {parts[name]['perplexity']:.2f} (" in text
    assert re.search(r"learned for 0.002 minutes: [\d,]+ steps of 2 x 1 blocks", text)


def test_a_record_goes_on_only_with_what_is_about_the_same(tmp_path):
    file, asked = tmp_path / "gpu.json", []

    def record(about: dict, *, complete: bool = False) -> None:
        record = Record(file, about, lambda content: "a page")
        asked.append(record.do("answer", lambda: len(asked)))
        record.write(complete=complete)

    record({"card": "a"})
    record({"card": "a"})  # kept
    record({"card": "b"})
    record({"card": "b"}, complete=True)  # kept, and now finished
    record({"card": "b"})
    assert asked == [0, 0, 2, 2, 4]
    file.write_text('{"about": ')  # torn
    record({"card": "b"})
    assert asked[-1] == 5
    assert file.with_suffix(".md").read_text() == "a page"


class _Parts:
    """A record that writes nothing."""

    def __init__(self):
        self.content = {"parts": {}}

    def do(self, name, work):
        return self.content["parts"].setdefault(name, work())


def test_a_sweep_ends_where_memory_does(monkeypatch):
    def steps(student, teacher, blocks, n, *, batch_size, compile, **settings):
        if batch_size > (32 if compile else 64):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {"tokens_per_s": 1000.0 * batch_size, "mfu": 0.4, "peak_memory_mb": 9000.0}

    monkeypatch.setattr(gpu_results, "steps", steps)
    monkeypatch.setattr(gpu_results, "half", lambda teacher: None)
    record = _Parts()
    gpu_results.sweep(record, None, None, SIZES["gpu"])
    rows = list(record.content["parts"].values())
    fitted = [(row["kl_positions"], row["compile"], row["batch_size"]) for row in rows]
    one_way = [(False, 8), (False, 16), (False, 32), (False, 64), (False, 128)]
    one_way += [(True, 8), (True, 16), (True, 32), (True, 64)]
    assert fitted == [(way, *each) for way in ("masked", "all") for each in one_way]
    assert [row["batch_size"] for row in rows if "trouble" in row] == [128, 64, 128, 64]
    monkeypatch.setattr(gpu_results, "steps", lambda *args, **settings: {"tokens_per_s": 32768.0})
    plan = gpu_results.plan_run(record, torch.nn.Linear(1, 1), None, SIZES["gpu"], minutes=10)
    assert (plan["batch_size"], plan["accumulation"]) == (16, 16)
    assert plan["steps"] == 600  # a second for each step of 256 blocks of 128
    assert plan["student_steps"] == 300


def test_what_cannot_be_compiled_is_noted_and_other_errors_are_not_hidden(monkeypatch):
    def steps(*args, **settings):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(gpu_results, "steps", steps)
    monkeypatch.setattr(gpu_results, "half", lambda teacher: None)
    row = gpu_results.try_steps(None, None, SIZES["gpu"], compile=True)
    assert row == {"trouble": "cannot be compiled: RuntimeError"}
    with pytest.raises(RuntimeError, match="no compiler"):
        gpu_results.try_steps(None, None, SIZES["gpu"], compile=False)


@pytest.mark.skipif(describe().device == "cuda", reason="there is a GPU")
def test_without_a_gpu_it_is_refused_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    with pytest.raises(CourseError, match="no GPU here that torch can use"):
        gpu_results.measure(tmp_path / "results")
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(gpu_results, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="no GPU here"):
        gpu_results.main(["3"])
    with pytest.raises(SystemExit, match="Minutes are a number"):
        gpu_results.main(["soon"])


def test_a_try_in_the_smoke_profile_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setattr(gpu_results, "ROOT", tmp_path)
    folders = []
    monkeypatch.setattr(gpu_results, "measure", lambda folder, minutes: folders.append(folder))
    gpu_results.main([])
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    gpu_results.main([])
    assert folders == [tmp_path / "build" / "smoke", tmp_path / "docs" / "results"]
