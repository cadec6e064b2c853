"""Bytes, parameters and memory, each counted in a second way."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from course_utils.errors import ModelError
from course_utils.measure.size import parameters, peak_memory_mb, size_mb
from course_utils.models.classifier import TorchClassifier
from course_utils.ship.runtime import OnnxClassifier


@pytest.fixture
def int8_folder(tiny_onnx):
    folder, _ = tiny_onnx["int8"]
    return folder


def test_size_is_that_of_the_model_file_alone(tiny_teacher_folder, int8_folder, tmp_path):
    (tmp_path / "model.onnx").write_bytes(bytes(2_500_000))
    (tmp_path / "tokenizer.json").write_bytes(bytes(9_000_000))
    assert size_mb(tmp_path) == size_mb(tmp_path / "model.onnx") == 2.5
    weights = tiny_teacher_folder / "model.safetensors"
    assert size_mb(tiny_teacher_folder) == os.path.getsize(weights) / 1e6
    assert size_mb(int8_folder) == os.path.getsize(int8_folder / "model.onnx") / 1e6


def test_one_model_has_one_number_of_parameters(tiny_teacher_folder, int8_folder):
    hidden, ff, layers = 32, 64, 4
    embeddings = (120 + 64 + 2) * hidden + 2 * hidden
    layer = 4 * (hidden + 1) * hidden + (hidden + 1) * ff + (ff + 1) * hidden + 4 * hidden
    heads = (hidden + 1) * hidden + (hidden + 1) * 3
    expected = embeddings + layers * layer + heads
    assert parameters(TorchClassifier(tiny_teacher_folder).model) == expected
    assert parameters(tiny_teacher_folder) == expected
    assert parameters(tiny_teacher_folder / "model.safetensors") == expected
    assert parameters(str(int8_folder)) == expected


def test_an_onnx_file_from_elsewhere_is_counted(tiny_teacher_folder, int8_folder, tmp_path):
    import onnx

    model = onnx.load(int8_folder / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    assert parameters(tmp_path) == parameters(tiny_teacher_folder)


def test_parameters_are_counted_without_loading_weights(tiny_teacher_folder, tmp_path):
    """The header alone is read: what comes after it may be missing."""
    start = (tiny_teacher_folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(start[:8], "little")
    (tmp_path / "model.safetensors").write_bytes(start[:header])
    assert parameters(tmp_path) == parameters(tiny_teacher_folder)


@pytest.mark.parametrize("measure", [size_mb, parameters])
def test_a_folder_without_model(tmp_path, measure):
    with pytest.raises(ModelError, match="no model file"):
        measure(tmp_path)


def test_peak_memory_is_that_of_a_new_process(int8_folder, some_texts):
    """A process that is started counts its parent's memory as its own, if asked the wrong way."""
    before = peak_memory_mb(OnnxClassifier, int8_folder, some_texts)
    ballast = np.ones(120_000_000, np.float32)  # 480 MB
    after = peak_memory_mb(OnnxClassifier, int8_folder, some_texts)
    assert ballast.nbytes / 1e6 > 400
    assert 30 < before < 400
    assert after == pytest.approx(before, rel=0.3)


def test_peak_memory_counts_what_prediction_needs(int8_folder, some_texts):
    """Attention of longer texts needs more memory; so predict really ran, on these texts."""
    few = peak_memory_mb(OnnxClassifier, int8_folder, ["the"])
    many = peak_memory_mb(OnnxClassifier, int8_folder, [*some_texts, "the array " * 60] * 400)
    assert many > few


def test_a_model_that_does_not_load_says_why(int8_folder, tmp_path, some_texts):
    broken = shutil.copytree(int8_folder, tmp_path / "broken")
    (broken / "config.json").unlink()
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        peak_memory_mb(OnnxClassifier, broken, some_texts)
