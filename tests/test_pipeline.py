"""The whole path on real weights and a handful of the course's own reviews."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from course_utils import pipeline
from course_utils.data.tasks import Task
from course_utils.distill.recipes import VARIED_PER_TEXT
from course_utils.errors import CourseError, DataError, OutputError
from course_utils.measure.report import validate

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run in the smoke profile, and what it said."""
    said: list[str] = []
    out = tmp_path_factory.mktemp("run") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_PROFILE", "smoke")
        results = pipeline.run("reviews", out=out, say=said.append, progress=False)
    return out, results, said


@pytest.fixture
def run_again(finished, tmp_path, monkeypatch):
    """A copy of the finished folder and a function that runs on it, returning what was said."""
    out = tmp_path / "report"
    shutil.copytree(finished[0], out)
    monkeypatch.setenv("COURSE_PROFILE", "smoke")

    def run(**changes) -> list[str]:
        said: list[str] = []
        pipeline.run(
            **({"data": "reviews", "out": out, "progress": False} | changes), say=said.append
        )
        return said

    return out, run


def test_results_keep_the_contract(finished):
    out, results, _ = finished
    validate(results)
    assert json.loads((out / "results.json").read_text()) == results
    assert [row["name"] for row in results["rows"]] == [row.name for row in pipeline.ROWS]
    assert results["task"]["labels"] == ["negative", "positive"]


def test_everything_lies_under_the_output_folder(finished):
    out, _, _ = finished
    files = {path.name for path in out.iterdir() if path.is_file()}
    assert {"results.json", "results.md", "pareto.png", "report.html", "run.json"} <= files
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_student_is_smaller_in_every_way_that_does_not_depend_on_the_clock(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    assert rows["student"]["params"] < rows["teacher"]["params"]
    assert rows["student, int8"]["size_ratio"] >= 5
    assert rows["student, ONNX"]["agreement"] == rows["student"]["agreement"]


def test_nothing_is_done_twice(run_again):
    _, run = run_again
    said = run()
    assert not [line for line in said if line.endswith(": working")]


def test_a_damaged_model_is_made_again_and_what_depends_on_it_is_kept(run_again):
    out, run = run_again
    file = out / "student_int8" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    said = run()
    assert "student_int8: working" in said
    assert "student: kept from an earlier run" in said


def test_interrupted_in_the_middle_the_next_run_goes_on(run_again, monkeypatch):
    out, run = run_again
    shutil.rmtree(out / "student")
    shutil.rmtree(out / "student_int8")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (out / "student").exists()
    said = run()
    assert {"teacher: kept from an earlier run", "student: working"} <= set(said)


def test_another_depth_needs_another_folder(run_again):
    out, run = run_again
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(OutputError, match=r"layers None there, 2 now"):
        run(layers=2)
    assert sorted(path.name for path in out.rglob("*")) == before


def test_bad_data_is_found_before_the_folder_is_filled(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    table = tmp_path / "three.csv"
    table.write_text("text,label\na,x\nb,y\nc,x\n")
    with pytest.raises(DataError, match="3 rows are too few for a task"):
        pipeline.run(table, out=tmp_path / "out", say=lambda _: None, progress=False)
    assert not (tmp_path / "out").exists()


def test_more_layers_than_the_teacher_has(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    with pytest.raises(CourseError, match="6-layer teacher has 1 to 6 layers, not 7"):
        pipeline.run("reviews", out=tmp_path / "out", layers=7, say=lambda _: None, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(OutputError, match="holds no run of the course"):
        pipeline.run("reviews", out=tmp_path, say=lambda _: None, progress=False)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["thesis.txt"]


@pytest.fixture
def tiny_tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


def a_task(unlabelled=()) -> Task:
    rows = Dataset.from_dict({"text": ["Plot the line.", "the"], "label": [1, 0]})
    return Task("a", ("x", "y"), rows, rows, rows, unlabelled)


def transfer_set(tokenizer, task, *, seed=0):
    return pipeline.transfer_set(
        tokenizer, task, pipeline.labelled_texts(tokenizer, task), seed=seed
    )


def test_the_transfer_set_has_the_tasks_own_unlabelled_texts(tiny_tokenizer):
    texts = transfer_set(tiny_tokenizer, a_task(["A tensor moves."]))
    own = ["Plot the line.", "the", "A tensor moves."]
    assert texts.input_ids == [tiny_tokenizer(text)["input_ids"] for text in own]
    assert texts.columns["labels"].tolist() == [1, 0, -100]


def test_a_task_without_unlabelled_texts_gets_variations(tiny_tokenizer, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    texts = transfer_set(tiny_tokenizer, a_task())
    assert len(texts) == 2 + 2 * VARIED_PER_TEXT
    assert texts.columns["labels"].tolist() == [1, 0] + [-100] * 40
    given, made = (
        {i for ids in part for i in ids} for part in (texts.input_ids[:2], texts.input_ids[2:])
    )
    assert made == given | {tiny_tokenizer.mask_token_id}
    assert texts.fingerprint != transfer_set(tiny_tokenizer, a_task(), seed=1).fingerprint


def test_texts_with_several_labels_have_rows_of_them_and_varied_ones_none(
    tiny_tokenizer, monkeypatch
):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setattr(pipeline, "SMOKE_VARIED", 1)
    rows = Dataset.from_dict({"text": ["Plot the line.", "the"], "label": [[0, 1], []]})
    task = Task("a", ("x", "y"), rows, rows, rows, multi_label=True)
    labels = transfer_set(tiny_tokenizer, task).columns["labels"]
    assert labels.tolist() == [[1, 1], [0, 0], [-100, -100]]


def test_variations_have_a_limit(tiny_tokenizer, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setattr(pipeline, "SMOKE_VARIED", 3)
    assert len(transfer_set(tiny_tokenizer, a_task())) == 2 + 3
