"""`course distill` on a tiny teacher: what it makes and refuses, and that it can be stopped."""

from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import write_classifier

from course_utils import pipeline, shrinking
from course_utils.compress.vocabulary import tokens_to_keep
from course_utils.data.tasks import Task
from course_utils.distill.lock import RunLock
from course_utils.errors import CourseError, DataError, ModelError, OutputError
from course_utils.files import sha256
from course_utils.measure import in_one_run
from course_utils.measure.report import validate
from course_utils.models.classifier import TorchClassifier
from course_utils.ship.runtime import OnnxClassifier
from course_utils.shrinking import Shrinking, candidates, shrink
from course_utils.shrinking import steps as shrinking_steps
from course_utils.shrinking.candidates import Cost, choose, depths_to_try, within
from course_utils.shrinking.evidence import Suspect, as_csv, suspects
from course_utils.shrinking.folder import put

CLASSES = ("numpy", "pandas", "torch")
FILES = {
    "README.md",
    "config.json",
    "labels.txt",
    "model.onnx",
    "model.safetensors",
    "report.html",
    "results.json",
    "suspects.csv",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny teacher for other classes, and two tables of texts."""
    place = tmp_path_factory.mktemp("shrinking")
    names = dict(enumerate(["sport", "politics", "weather"]))
    write_classifier(
        place / "encoder", max_position_embeddings=128, id2label=names, num_hidden_layers=2
    )
    dice = random.Random(0)
    cues = {"numpy": "array", "pandas": "frame", "torch": "tensor"}
    words = ["the", "sum", "of", "every", "row", "its", "index", "and", "plot", "line"]
    texts = {}
    for _ in range(90):
        label = dice.choice(CLASSES)
        texts[" ".join([cues[label], *dice.choices(words, k=5)])] = label
    rows = "".join(f"{text},{label}\n" for text, label in texts.items())
    (place / "one.csv").write_text("words,library\n" + rows)
    sets = "".join(
        f"{text},{label}{';numpy' * (k % 3 == 0)}\n"
        for k, (text, label) in enumerate(texts.items())
    )
    (place / "many.csv").write_text("words,library\n" + sets)
    return place


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setattr(in_one_run, "peak_memory_mb", lambda *_: 1.0)  # three processes with torch


def asked(place, **changes) -> Shrinking:
    settings = Shrinking(
        data=str(place / "one.csv"),
        text="words",
        label="library",
        teacher=str(place / "encoder"),
        budget_mb=5.0,
        layers=2,
    )
    return replace(settings, **changes)


def run(settings: Shrinking) -> tuple[dict, list[str]]:
    said: list[str] = []
    return shrink(settings, say=said.append, progress=False), said


@pytest.fixture(scope="module")
def finished(place):
    """A complete run: its folder, its results, what it said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_PROFILE", "smoke")
        patch.setattr(in_one_run, "peak_memory_mb", lambda *_: 1.0)
        out = place / "out"
        return (out, *run(asked(place, out=str(out))))


def test_the_folder_holds_the_model_and_its_proof(finished):
    out, results, _ = finished
    here = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert here == FILES | {"work"}
    assert not [path for path in out.iterdir() if path.name.startswith(".new")]
    validate(results)
    assert json.loads((out / "results.json").read_text()) == results
    assert [row["name"] for row in results["rows"]] == ["teacher", "student", "student, int8"]
    assert (out / "labels.txt").read_text().splitlines() == list(CLASSES)


def test_both_runtimes_load_the_same_student(finished, place):
    out, results, _ = finished
    texts = [line.split(",")[0] for line in (place / "one.csv").read_text().splitlines()[1:9]]
    theirs, ours = TorchClassifier(out), OnnxClassifier(out)
    assert theirs.labels == ours.labels == CLASSES
    assert theirs.max_length == ours.max_length
    kept = results["extra"]["choice"]
    assert theirs.model.config.num_hidden_layers == kept["layers"]
    trained = place / "out" / "work" / f"student_{kept['layers']}_{kept['seed']}"
    assert np.array_equal(theirs.predict(texts), TorchClassifier(trained).predict(texts))
    assert np.abs(theirs.predict(texts) - ours.predict(texts)).max() < 1


def test_what_is_odd_is_said_before_anything_is_made(finished):
    _, results, said = finished
    told = results["extra"]["said"]
    assert told
    assert (
        max(map(said.index, told)) < said.index("sizes: working") < said.index("teacher: working")
    )


def test_no_file_says_where_on_this_machine_it_was_made(finished, place):
    for name in FILES - {"model.safetensors"}:
        assert str(place).encode() not in (finished[0] / name).read_bytes(), name


def test_nothing_is_done_twice(finished, place):
    out = finished[0]
    before = {name: sha256(out / name) for name in FILES}
    _, said = run(asked(place, out=str(out)))
    assert not [line for line in said if line.endswith(": working")]
    assert {name: sha256(out / name) for name in FILES} == before


STEPS = (  # in their order: the module, and what is called inside the step
    (shrinking_steps, "measure_costs"),
    (pipeline, "fit_teacher"),
    (shrinking_steps, "teacher_signals"),
    (shrinking_steps, "train"),
    (shrinking_steps, "choose"),
    (shrinking_steps, "to_onnx"),
    (shrinking_steps, "measured"),
    (shrinking, "put"),
)


def test_stopped_in_every_step_it_ends_where_an_undisturbed_run_does(
    finished, place, tmp_path, monkeypatch
):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    for module, name in STEPS:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(asked(place, out=str(out)))
        assert not (out / "config.json").exists()
    results, said = run(asked(place, out=str(out)))
    assert not [line for line in said if line.endswith(": working")]
    for name in ("model.safetensors", "model.onnx", "config.json", "labels.txt", "suspects.csv"):
        assert sha256(out / name) == sha256(finished[0] / name), name
    for key in ("choice", "seeds", "by_class", "said"):
        assert results["extra"][key] == finished[1]["extra"][key]


def test_other_settings_need_another_folder(finished, place):
    out = finished[0]
    before = sorted(out.rglob("*"))
    with pytest.raises(OutputError, match=r"seed 0 there, 7 now"):
        run(asked(place, out=str(out), seed=7))
    assert sorted(out.rglob("*")) == before


def test_a_folder_in_use_is_left_alone(finished, place):
    with RunLock(finished[0]), pytest.raises(OutputError, match="Another run writes into"):
        run(asked(place, out=str(finished[0])))


@pytest.mark.parametrize("name", ["thesis.txt", "work"])
def test_a_folder_of_something_else_is_left_alone(place, tmp_path, name):
    (tmp_path / name).write_text("three years of work")
    with pytest.raises(OutputError, match=f"holds no run of course distill: {name}"):
        run(asked(place, out=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_is_trained_when_no_student_can_fit(place, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(CourseError, match=r"No student keeps to 0\.001 MB") as error:
        run(asked(place, out=str(out), budget_mb=0.001))
    assert "2 layers: " in str(error.value)
    assert error.value.do.startswith("The nearest has 1 layer: ")
    assert not (out / "work" / "teacher").exists()
    (out / "work" / "sizes" / "costs.json").stat()  # they are kept for the next, larger budget


def test_a_vocabulary_that_lacks_the_language_is_refused_unless_told(place, tmp_path):
    table = tmp_path / "chinese.csv"
    signs = [chr(0x4E00 + k) for k in range(60)]
    rows = (f"{a}{b}{a}，{b},{k % 2}\n" for k, (a, b) in enumerate(pairwise(signs)))
    table.write_text("words,library\n" + "".join(rows), encoding="utf-8")
    settings = asked(place, data=str(table), out=str(tmp_path / "out"), budget_mb=0.001)
    with pytest.raises(DataError, match="vocabulary"):
        run(settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(CourseError, match="No student keeps to"):  # it went on
        run(replace(settings, allow_unknown=True))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"text": "phrase"}, DataError, "There is no column 'phrase'"),
        ({"layers": 3}, ModelError, "2-layer teacher has 1 to 2 layers, not 3"),
        ({"teacher": "./nowhere"}, ModelError, "nowhere"),
    ],
)
def test_a_mistake_is_told_before_the_folder_exists(place, tmp_path, changes, error, said):
    with pytest.raises(error, match=said):
        run(asked(place, out=str(tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": 0}, "--layers is 0"),
        ({"budget_mb": 0.0}, "--budget-mb is 0"),
        ({"budget_ms": float("nan")}, "--budget-ms is nan"),
        ({"budget_mb": float("inf")}, "--budget-mb is inf"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"seeds": 21}, "--seeds is 21"),
        ({"seed": -1}, "--seed is -1"),
        ({"text": " "}, "--text is empty"),
    ],
)
def test_settings_that_nobody_can_follow(changes, said):
    with pytest.raises(DataError, match=said):
        Shrinking(**({"data": "reviews"} | changes))


def test_half_the_teacher_or_with_budgets_everything_below():
    assert depths_to_try(6, None, budgets=False) == (3,)
    assert depths_to_try(6, 5, budgets=False) == (5,)
    assert depths_to_try(6, None, budgets=True) == (3, 2, 1)
    assert depths_to_try(1, None, budgets=True) == (1,)


COSTS = (Cost(3, 9.0, 3.0), Cost(2, 7.0, 2.0), Cost(1, 5.0, 1.0))


@pytest.mark.parametrize(
    ("mb", "ms", "fit"),
    [(9.0, None, (3, 2, 1)), (8.9, None, (2, 1)), (None, 1.5, (1,)), (9.0, 2.0, (2, 1))],
)
def test_within_both_budgets(mb, ms, fit):
    assert within(COSTS, mb, ms) == fit


def test_the_nearest_is_named_when_none_fits():
    with pytest.raises(CourseError, match=r"No student keeps to 8 MB and 0\.5 ms") as error:
        within(COSTS, 8.0, 0.5)
    assert "The nearest has 1 layer: 5.0 MB, 1.00 ms" in error.value.do


def rights(share: float, n: int = 400) -> np.ndarray:
    return np.arange(n) < share * n


def test_the_smallest_that_cannot_be_told_from_the_best():
    right = {3: rights(0.90)[None], 2: rights(0.8975)[None], 1: rights(0.7)[None]}
    choice = choose(right)
    assert choice.layers == 2
    assert [each["layers"] for each in choice.depths] == [3, 2, 1]
    assert choice.depths[2]["behind"][0] > 0
    assert sum("kept" in line for line in choice.lines()) == 1


def test_students_are_compared_on_the_same_texts():
    """Both miss the same texts but for ten: apart, though each alone is uncertain by 4 %."""
    few_more = rights(0.75)
    choice = choose({2: few_more[None], 1: (few_more & (np.arange(400) >= 10))[None]})
    assert choice.layers == 2


def test_the_mean_over_seeds_decides_and_the_best_seed_is_kept():
    steady = np.stack([rights(0.80), rights(0.82)])
    lucky = np.stack([rights(0.50), rights(0.85)])
    choice = choose({2: steady, 1: lucky})
    assert (choice.layers, choice.seed) == (2, 1)
    assert choice.depths[0]["accuracy"] == [0.80, 0.82]


def test_a_classifier_of_the_same_labels_is_taken_as_it_is(place, tmp_path):
    ours = write_classifier(tmp_path / "ready", max_position_embeddings=128)  # in another order
    task = a_task(CLASSES)
    assert shrinking_steps.knows(ours, task)
    assert not shrinking_steps.knows(place / "encoder", task)
    assert not shrinking_steps.knows(ours, replace(task, multi_label=True))
    theirs = TorchClassifier(ours)
    shrinking_steps.take_over(tmp_path / "taken", ours, theirs.tokenizer, task)
    taken = TorchClassifier(tmp_path / "taken")
    assert taken.labels == CLASSES != theirs.labels
    columns = [theirs.labels.index(label) for label in taken.labels]
    texts = ["Plot the line.", "the array"]
    assert np.array_equal(taken.predict(texts), theirs.predict(texts)[:, columns])


def a_task(labels, train=((0, "x"), (1, "y")), **changes) -> Task:
    rows = Dataset.from_dict({"text": [t for _, t in train], "label": [k for k, _ in train]})
    return Task("a", tuple(labels), rows, rows, rows, **changes)


def test_suspects_are_firm_and_against_the_label():
    task = a_task("ab", [(0, "right"), (0, "=firm"), (1, "unsure"), (1, "firmer")])
    logits = np.array([[9.0, 0.0], [0.0, 3.0], [1.0, 0.0], [9.0, 0.0]])
    found = suspects(logits, task)
    assert [(s.row, s.text, s.label, s.teacher) for s in found] == [
        (4, "firmer", "b", "a"),
        (2, "=firm", "a", "b"),
    ]
    assert found[1].probability == pytest.approx(1 / (1 + np.exp(-3)))


def test_suspects_among_sets_of_labels():
    task = a_task("abc", [([0], "right"), ([0, 1], "less"), ([], "more")], multi_label=True)
    logits = np.array([[9.0, -9, -9], [4.0, -4, -1], [-9.0, 1, 5]])
    assert [(s.row, s.label, s.teacher) for s in suspects(logits, task)] == [
        (3, "none", "b, c"),
        (2, "a, b", "a"),
    ]


def test_no_cell_of_the_suspects_is_a_formula():
    odd = [Suspect(1, '=HYPERLINK("x")', "-1", "+a", 0.99), Suspect(2, 'say "a, b"', "a", "b", 1)]
    rows = list(csv.reader(io.StringIO(as_csv(odd))))
    assert rows == [
        ["row", "text", "label", "teacher", "probability"],
        ["1", '\'=HYPERLINK("x")', "-1", "'+a", "0.990"],
        ["2", 'say "a, b"', "a", "b", "1.000"],
    ]


def test_the_former_files_stay_when_the_new_ones_cannot_be_written(tmp_path):
    put(tmp_path, {"config.json": "old", "model.onnx": "old"})
    with pytest.raises(OSError, match="missing"):
        put(tmp_path, {"model.onnx": "new", "config.json": tmp_path / "missing"})
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "config.json": "old",
        "model.onnx": "old",
    }


def test_the_teacher_is_asked_once_for_all_depths(finished):
    """Students of 2 layers and of 1 share its last layer: 2 of its layers are heard, not 3."""
    work = finished[0] / "work"
    heard = load_file(work / "signals" / "signals.safetensors")["teacher_hidden"]
    assert heard.shape[1] == 2
    assert torch.isfinite(heard).all()


def test_texts_with_several_labels(place, tmp_path):
    out = tmp_path / "out"
    data = str(place / "many.csv")
    settings = asked(place, data=data, out=str(out), label_separator=";", budget_mb=None, layers=1)
    results, _ = run(settings)
    assert results["extra"]["multi_label"] is True
    config = json.loads((out / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert OnnxClassifier(out).labels == CLASSES
    assert results["rows"][0]["agreement"] == 1


def test_a_student_has_the_words_that_were_kept_and_no_others(place):
    theirs = TorchClassifier(place / "encoder")
    texts = pipeline.encode(theirs.tokenizer, ["the array sum", "plot line"])
    keep = tokens_to_keep(theirs.tokenizer, texts.input_ids, at_least=0)
    trimmed = candidates.untrained(theirs.model, theirs.tokenizer, keep, 2)
    assert trimmed.model.config.vocab_size == len(trimmed.tokenizer) == len(keep)
    assert len(keep) < len(theirs.tokenizer)
