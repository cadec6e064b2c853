"""Export keeps the logits at every shape; int8 keeps the classes and loses the weight."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny import write_classifier

from course_utils.data.sources import find_model
from course_utils.errors import CourseError, ModelError, OutputError
from course_utils.machine import describe
from course_utils.measure.size import size_mb
from course_utils.models.classifier import TorchClassifier
from course_utils.ship import onnx as ship
from course_utils.ship.onnx import export, quantize, to_onnx
from course_utils.ship.runtime import OnnxClassifier, open_session


@pytest.fixture(scope="module")
def graphs(tiny_onnx):
    return {name: onnx.load(folder / "model.onnx").graph for name, (folder, _) in tiny_onnx.items()}


def count(graph, op):
    return sum(node.op_type == op for node in graph.node)


def test_parity_is_checked_at_all_shapes(tiny_onnx):
    _, parity = tiny_onnx["fp32"]
    assert 0 < parity.max_abs_diff < 1e-4
    assert parity.agreement == 1
    assert {(1, 1), (1, 2), (1, 64), (2, 64), (5, 7)} <= set(parity.shapes)
    assert {texts for texts, _ in parity.shapes} >= {1, 2, 5, 32}  # 32: the texts' own batches
    assert "texts of" in parity.where


def test_texts_get_pytorchs_logits_in_any_batch(tiny_onnx, tiny_teacher_folder, some_texts):
    ours, theirs = OnnxClassifier(tiny_onnx["fp32"][0]), TorchClassifier(tiny_teacher_folder)
    assert ours.token_ids(some_texts) == theirs.token_ids(some_texts)
    assert ours.labels == theirs.labels == ("numpy", "torch", "pandas")
    for batch_size in (1, 9):
        logits = ours.predict(some_texts, batch_size)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, theirs.predict(some_texts), atol=1e-4)


def test_long_texts_are_cut_alike(tiny_onnx, tiny_teacher_folder):
    texts = ["the array " * 200]
    encoded = OnnxClassifier(tiny_onnx["fp32"][0]).encode(texts)
    assert encoded["input_ids"].shape == (1, 64)
    np.testing.assert_array_equal(
        encoded["input_ids"], TorchClassifier(tiny_teacher_folder).encode(texts)["input_ids"]
    )


def test_a_folder_holds_one_model_file_and_no_pytorch_weights(tiny_onnx):
    for folder, _ in tiny_onnx.values():
        assert {file.name for file in folder.iterdir()} == {
            "model.onnx",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        onnx.checker.check_model(folder / "model.onnx", full_check=True)


def test_the_graph_is_lean(graphs):
    """Standard operators only, and none spent on the mask or on a decomposed GELU."""
    graph = graphs["fp32"]
    assert {node.domain for node in graph.node} == {""}
    assert count(graph, "Gelu") == count(graph, "Softmax") == 4
    assert count(graph, "LayerNormalization") == 9
    assert not count(graph, "Erf") + count(graph, "Where") + count(graph, "IsNaN")
    assert [i.name for i in graph.input] == ["input_ids", "attention_mask"]


def test_every_weight_is_8_bit_with_a_scale_for_each_channel(graphs):
    small = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    weights = {t.name: t for t in graphs["int8"].initializer}
    tables = [f"model.bert.embeddings.{kind}_embeddings.weight_quantized" for kind in
              ("word", "position", "token_type")]  # fmt: skip
    assert all(weights[name].data_type in small for name in tables)
    assert [list(weights[name].dims) for name in tables] == [[120, 32], [64, 32], [2, 32]]
    assert [list(weights[name.replace("_quantized", "_scale")].dims) for name in tables] == [
        [120, 1], [64, 1], [2, 1]
    ]  # fmt: skip
    floats = [t.name for t in weights.values() if len(t.dims) > 1 and t.data_type == 1]
    assert all(name.endswith("_scale") for name in floats)
    matrices = [t for t in weights.values() if len(t.dims) == 2 and t.name not in tables]
    matrices = [t for t in matrices if t.name.endswith("_quantized")]
    assert len(matrices) == 4 * 6 + 2
    for matrix in matrices:
        assert matrix.data_type == onnx.TensorProto.INT8
        scale = weights[matrix.name.replace("_quantized", "_scale")]
        assert list(scale.dims) == [matrix.dims[1]]
    assert count(graphs["int8"], "MatMulInteger") == len(matrices)


def test_int8_stays_close_and_says_how_close(tiny_onnx, tiny_teacher_folder, some_texts):
    folder, parity = tiny_onnx["int8"]
    theirs = TorchClassifier(tiny_teacher_folder).predict(some_texts)
    ours = OnnxClassifier(folder).predict(some_texts)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    assert np.abs(ours - theirs).max() > 1e-4  # or nothing was quantized
    assert 0.9 < parity.agreement <= 1
    assert 1e-4 < parity.max_abs_diff < 1


def test_int8_is_several_times_smaller(tmp_path):
    names = {"id2label": None, "label2id": None}  # two labels without names: nothing is saved
    folder = write_classifier(
        tmp_path / "wide", num_hidden_layers=2, hidden_size=128, intermediate_size=512, **names
    )
    to_onnx(folder, tmp_path / "int8", int8=True)
    assert size_mb(folder) / size_mb(tmp_path / "int8") > 2.5
    assert OnnxClassifier(tmp_path / "int8").labels == ("LABEL_0", "LABEL_1")


def test_weights_keep_7_bits_where_8_would_overflow(tiny_onnx, tmp_path, monkeypatch):
    """Without VNNI a sum of two products of 8 bits does not fit into 16 bits."""

    def largest(features):
        machine = type(describe())(**{**vars(describe()), "cpu_features": features})
        monkeypatch.setattr(ship, "describe", lambda: machine)
        file = quantize(tiny_onnx["fp32"][0] / "model.onnx", tmp_path / "model.onnx")
        tensors = onnx.load(file).graph.initializer
        int8 = [
            numpy_helper.to_array(t)
            for t in tensors
            if t.data_type == onnx.TensorProto.INT8 and "embeddings" not in t.name
        ]
        return max(np.abs(t.astype(int)).max() for t in int8)

    assert largest(("avx2",)) <= 64
    assert largest(("avx2", "avx512_vnni")) == 127
    assert largest(("dotprod",)) == 127


@pytest.mark.parametrize(("wrong", "difference"), [(0.5, 0.5), (np.nan, np.nan), (0, 0)])
def test_compare_finds_the_one_shape_that_differs(tiny_teacher_folder, wrong, difference):
    classifier = TorchClassifier(tiny_teacher_folder)

    def logits(batch):
        return classifier.logits(batch) + (wrong if batch["input_ids"].shape == (2, 3) else 0)

    parity = ship.compare(classifier, logits)
    assert parity.max_abs_diff == pytest.approx(difference, nan_ok=True)
    assert parity.where == ("2 texts of 3 tokens" if wrong else "1 texts of 1 tokens")


def test_a_graph_that_differs_is_not_written(tiny_teacher_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "run", lambda session, batch: np.full((1, 3), np.nan))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").touch()
    with pytest.raises(ModelError, match="differs from PyTorch"):
        to_onnx(tiny_teacher_folder, tmp_path / "out", int8=True)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["config.json"]


def test_a_small_difference_is_refused_in_our_words_alone(
    tiny_onnx, tiny_teacher_folder, monkeypatch, tmp_path, capfd, recwarn
):
    """The limit lies far above float noise; the exporter's own remarks are not shown."""
    _, parity = tiny_onnx["fp32"]
    assert parity.max_abs_diff < ship.TOLERANCE / 10
    monkeypatch.setattr(ship, "compare", lambda *_, **__: replace(parity, max_abs_diff=0.0011))
    with pytest.raises(ModelError, match=re.escape(parity.where)):
        export(tiny_teacher_folder, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    said = "".join(capfd.readouterr())
    assert "onnx" not in said.lower()
    assert "torchvision" not in said
    assert not len(recwarn)
    assert logging.root.manager.disable == 0


def test_the_model_itself_is_not_replaced(tiny_teacher_folder):
    with pytest.raises(OutputError, match="would replace"):
        to_onnx(tiny_teacher_folder, tiny_teacher_folder / ".", int8=False)
    assert (tiny_teacher_folder / "model.safetensors").exists()


def test_threads(tiny_onnx, monkeypatch):
    folder = tiny_onnx["int8"][0]
    assert OnnxClassifier(folder, threads=3).threads == 3
    assert OnnxClassifier(folder).threads == torch.get_num_threads()
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert OnnxClassifier(folder).threads == 5


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(tiny_onnx, tmp_path, name):
    copy = shutil.copytree(tiny_onnx["int8"][0], tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {re.escape(name)}"):
        OnnxClassifier(copy)


def test_a_model_that_is_cut_short(tiny_onnx, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes((tiny_onnx["int8"][0] / "model.onnx").read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot read this model"):
        open_session(file)


def test_it_runs_without_torch(tiny_onnx):
    code = (
        "import sys; from course_utils.ship.runtime import OnnxClassifier;"
        f"print(OnnxClassifier({str(tiny_onnx['int8'][0])!r}).predict(['the array', 'a']).shape);"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(2, 3)\n"), done.stderr


def test_a_missing_onnx_runtime_says_what_to_install():
    code = "import sys; sys.modules['onnxruntime'] = None; import course_utils.ship.runtime"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'shrinking-bert[onnx]'" in done.stderr


@pytest.mark.weights
def test_real_weights_survive_int8(tmp_path):
    """Real activations have outliers that random ones lack; and the vocabulary is a real one."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        found = find_model(say=lambda _: None)
    except CourseError as error:
        pytest.skip(error.what)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(found.path, num_labels=4)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(found.path).save_pretrained(tmp_path / "model")
    to_onnx(tmp_path / "model", tmp_path / "int8", int8=True)
    texts = [
        "A warm and funny film.",
        "I want my two hours back!",
        "Returns the sorted, unique values of an array as a new array of the same type.",
        "The battery died after a week, and nobody at the shop would talk to me about it.",
    ]
    theirs = TorchClassifier(tmp_path / "model").predict(texts)
    ours = OnnxClassifier(tmp_path / "int8").predict(texts)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    assert size_mb(tmp_path / "model") / size_mb(tmp_path / "int8") > 3.8
