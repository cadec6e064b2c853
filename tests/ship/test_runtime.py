"""ONNX Runtime's classifier: damaged folders in words, threads without psutil, counted cuts."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from course_utils.errors import CourseError, DataError, ModelError
from course_utils.ship import runtime
from course_utils.ship.runtime import OnnxClassifier, default_threads


@pytest.fixture
def copy(tiny_onnx, tmp_path):
    return shutil.copytree(tiny_onnx["fp32"][0], tmp_path / "copy")


@pytest.mark.parametrize("name", runtime.FILES)
def test_a_file_that_is_cut_short_is_named(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError) as error:
        OnnxClassifier(copy)
    assert error.value.where == copy / name
    assert "cut short" in error.value.do


@pytest.mark.parametrize("key", runtime.CONFIG)
def test_a_configuration_that_lacks_something_says_what(copy, key):
    config = json.loads((copy / "config.json").read_text())
    del config[key]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"does not say {key}"):
        OnnxClassifier(copy)


def test_a_configuration_that_is_a_list(copy):
    (copy / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match="cannot be used"):
        OnnxClassifier(copy)


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("config", "id2label", ["numpy", "torch", "pandas"], "does not say id2label as an object"),
        (
            "config",
            "id2label",
            {"0": "numpy", "1": "torch"},
            "names 2 classes, and the model has 3",
        ),
        ("config", "id2label", {"0": "numpy", "2": "torch", "3": "pandas"}, "no list of classes"),
        ("config", "id2label", {"a": "numpy"}, "no list of classes"),
        ("config", "max_position_embeddings", "64", "max_position_embeddings as a whole number"),
        ("tokenizer_config", "model_max_length", "abc", "model_max_length as a whole number"),
        ("tokenizer_config", "model_max_length", -5, "cut to -5 tokens"),
        ("tokenizer_config", "model_max_length", 2, "cut to 2 tokens"),
    ],
)
def test_a_value_that_cannot_be_is_told_on_loading(copy, name, key, value, said):
    file = copy / f"{name}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=said) as error:
        OnnxClassifier(copy)
    assert error.value.where in (file, copy)


def test_an_argument_that_is_no_utf_8(tiny_onnx):
    model = OnnxClassifier(tiny_onnx["fp32"][0])
    with pytest.raises(DataError, match=r"'\\udcff' stands for a byte"):
        model.predict([os.fsdecode(b"the \xff array")])


def test_cut_texts_are_counted_over_all_calls(tiny_onnx):
    model = OnnxClassifier(tiny_onnx["fp32"][0])
    fits, too_long = "the " * 62, "the " * 63  # with [CLS] and [SEP], 64 tokens and 65
    model.predict([fits, too_long, too_long])
    model.predict([too_long])
    assert model.n_cut == 3
    assert len(model.token_ids([fits])[0]) == len(model.token_ids([too_long])[0]) == 64


def test_a_huge_text_is_not_split_as_a_whole(tiny_onnx, monkeypatch):
    model = OnnxClassifier(tiny_onnx["fp32"][0])
    huge = "the array " * 1_000_000
    whole = model.token_ids([huge[:10_000]])
    given = []

    class Watched:
        def encode_batch_fast(self, texts):
            given.extend(texts)
            return tokenizer.encode_batch_fast(texts)

    tokenizer, model.tokenizer = model.tokenizer, Watched()
    assert model.token_ids([huge]) == whole
    assert len(given[0]) == 64_000


@pytest.mark.parametrize(("wish", "threads"), [("4,2", 4), (" 3 ", 3)])
def test_threads_are_the_first_number_of_openmp(monkeypatch, wish, threads):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert default_threads() == threads


@pytest.mark.parametrize("wish", ["auto", "0", "-3", "9" * 20])
def test_what_is_no_number_of_threads_is_refused(monkeypatch, wish):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    with pytest.raises(CourseError, match="no number of threads") as error:
        default_threads()
    assert error.value.where == "OMP_NUM_THREADS"


def test_threads_without_psutil_are_the_cores_this_process_may_use(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert default_threads() == 3


@pytest.mark.parametrize(("physical", "threads"), [(2, 2), (8, 3), (None, 3)])
def test_threads_are_physical_cores_that_this_process_may_use(monkeypatch, physical, threads):
    import psutil

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: physical)
    assert default_threads() == threads
