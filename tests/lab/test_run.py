"""One run of the lab with a tiny teacher: what it makes, keeps, and says of the differences."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from tiny import TEXTS
from transformers import AutoConfig, AutoModel, AutoTokenizer

from course_utils.data.tasks import Task
from course_utils.distill.trainer import Recipe
from course_utils.errors import CourseError, DataError, ModelError
from course_utils.lab.operations import parse, written
from course_utils.lab.run import PIPELINES, run
from course_utils.lab.table import as_table, differences
from course_utils.measure.report import validate
from course_utils.models.classifier import as_stored
from course_utils.ship.runtime import OnnxClassifier

LINES = (
    "bf16",
    "layers 2",
    "layers 2, prune 50, int8",
    "rank 40, int8",
    "trim, layers 2",
    "layers 2,  trim",
)
RECIPE = Recipe(epochs=1, learning_rate=1e-4, batch_size=8, alpha=0.0, beta=1.0)


def split(n):
    texts = [f"{TEXTS[k % len(TEXTS)]} {k}" for k in range(n)]
    return Dataset.from_dict({"text": texts, "label": [k % 3 for k in range(n)]})


TASK = Task("tiny", ("numpy", "torch", "pandas"), split(24), split(9), split(30), TEXTS)


@pytest.fixture(scope="module")
def settings(tiny_teacher_folder):
    return {"teacher": tiny_teacher_folder, "recipe": RECIPE, "progress": False}


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("lab") / "out"
    said: list[str] = []
    return out, run(TASK, pipelines=LINES, out=out, say=said.append, **settings), said


def test_the_table_has_the_teacher_and_every_pipeline_in_its_order(finished):
    out, results, _ = finished
    validate(results)
    assert json.loads((out / "results.json").read_text()) == results
    names = [row["name"] for row in results["rows"]]
    assert names == ["teacher", *(written(parse(line)) for line in LINES)]
    assert results["machine"]
    assert results["task"]["name"] == "tiny"
    table = as_table(results)
    assert table.row_count == len(names)
    sizes = [float(cell) for cell in table.columns[1].cells]
    assert sizes == sorted(sizes, reverse=True)


def test_models_are_smaller_than_the_teacher_and_in_the_numbers_their_lines_name(finished):
    out, results, _ = finished
    rows = {row["name"]: row for row in results["rows"]}
    assert all(rows[name]["size_ratio"] > 1.2 for name in ("bf16", "layers 2"))
    assert rows["layers 2, prune 50, int8"]["params"] < rows["layers 2"]["params"]
    assert str(as_stored(out / "bf16").model.dtype) == "torch.bfloat16"
    assert OnnxClassifier(out / "layers-2_prune-50_int8").predict(["the array"]).shape == (1, 3)
    config = AutoConfig.from_pretrained(out / "layers-2_prune-50")
    assert config.heads_per_layer == [2, 2]


def test_pipelines_that_begin_alike_share_what_they_share(finished):
    _, _, said = finished
    assert said.count("layers-2: working") == 1
    assert said.count("layers-2: kept from an earlier run") >= 2


def test_a_later_call_adds_pipelines_and_keeps_the_models(finished, settings):
    out, _, _ = finished
    said: list[str] = []
    lines = [*LINES, "layers 2, int8"]
    results = run(TASK, pipelines=lines, out=out, say=said.append, **settings)
    working = [line for line in said if line.endswith(": working")]
    assert working == ["layers-2_int8: working", "measurements: working"]
    assert len(results["rows"]) == len(lines) + 1


def test_differences_are_paired_text_by_text():
    right = {"teacher": np.array([100.0, 100, 0, 0]), "int8": np.array([100.0, 0, 0, 0])}
    right["layers 2, int8"] = right["teacher"]
    (first, second) = differences(right)
    assert (first["name"], first["than"], first["points"]) == ("int8", "teacher", -25)
    assert first["half_width"] == pytest.approx(3.182 * 50 / 2, rel=1e-3)  # t, 3 degrees; s / √4
    assert (second["points"], second["half_width"]) == (0, 0)


def test_the_same_operations_in_two_orders_are_compared(finished):
    _, results, _ = finished
    pairs = [(d["name"], d["than"]) for d in results["differences"]]
    assert [pair for pair in pairs if pair[1] != "teacher"] == [
        ("trim, layers 2", "layers 2, trim")
    ]
    assert len(pairs) == len(LINES) + 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("layers 9", "4"),
        ("words 32", "has 32 columns"),
        ("shrink", "no operation 'shrink'"),
        ("trim 1000", "the most tokens that can be kept are 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(line, words, settings, tmp_path):
    with pytest.raises(CourseError, match=words):
        run(TASK, pipelines=["int8", line], out=tmp_path / "out", **settings)
    assert not Path(tmp_path, "out").exists()


@pytest.mark.parametrize("labels", [("torch", "numpy", "pandas"), ("numpy", "torch"), "none"])
def test_a_teacher_of_something_else_is_refused(labels, settings, tmp_path):
    if labels == "none":  # an encoder alone
        model = AutoModel.from_pretrained(settings["teacher"])
        teacher = tmp_path / "encoder"
        model.save_pretrained(teacher)
        AutoTokenizer.from_pretrained(settings["teacher"]).save_pretrained(teacher)
        with pytest.raises(ModelError, match="trained head"):
            run(TASK, pipelines="int8", out=tmp_path / "out", **settings | {"teacher": teacher})
    else:
        with pytest.raises(ModelError, match="The teacher's classes are numpy, torch, pandas"):
            run(replace(TASK, labels=labels), pipelines="int8", out=tmp_path / "out", **settings)
    assert not Path(tmp_path, "out").exists()


def test_texts_with_several_labels_are_refused(settings, tmp_path):
    several = replace(TASK, multi_label=True)
    with pytest.raises(DataError, match="one class each"):
        run(several, out=tmp_path / "out", **settings)
    assert not Path(tmp_path, "out").exists()


def test_the_default_pipelines_can_all_be_read_and_differ():
    assert [written(parse(line)) for line in PIPELINES] == list(PIPELINES)
    assert len(set(PIPELINES)) == len(PIPELINES)
