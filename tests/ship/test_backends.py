"""One call for all methods: it takes what is there, says why, and leaves the model as it was."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

from course_utils.compress import available
from course_utils.compress.available import METHODS, slower_here
from course_utils.compress.int8 import int8_model
from course_utils.compress.pruning import Kept, remove
from course_utils.compress.vocabulary import tokens_to_keep, trim_vocabulary
from course_utils.errors import DataError, ModelError, OutputError
from course_utils.machine import describe
from course_utils.measure.size import parameters, size_mb
from course_utils.measure.speed import speed
from course_utils.models.classifier import TorchClassifier
from course_utils.ship import backends
from course_utils.ship import onnx as ship_onnx
from course_utils.ship.backends import quantize
from course_utils.ship.runtime import OnnxClassifier


@pytest.fixture
def model(tiny_teacher_folder):
    return AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def features(monkeypatch):
    """A function that gives this machine a processor with other features, and another dtype."""

    def become(*names, dtype="float32"):
        machine = replace(describe(), cpu_features=names, cpu="Old CPU", dtype=dtype)
        for module in (available, backends, ship_onnx):
            monkeypatch.setattr(module, "describe", lambda: machine)

    return become


# Every method


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_in_logits_and_has_a_size(
    method, tiny_teacher_folder, some_texts, tmp_path
):
    before = TorchClassifier(tiny_teacher_folder).predict(some_texts)
    result = quantize(tiny_teacher_folder, method, texts=some_texts, out=tmp_path / "small")
    after = result.predict(some_texts)
    assert after.dtype == np.float32
    assert after.shape == before.shape
    least = 0.5 if method == "weight-int4" else 0.99
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > least
    assert np.abs(before - after).max() > 1e-4
    assert result.size_mb == pytest.approx(size_mb(tmp_path / "small"))
    assert parameters(tmp_path / "small") == parameters(tiny_teacher_folder)
    assert result.method == method
    assert result.backend == METHODS[method][0]
    assert result.backend in result.why
    assert str(result).startswith(f"{method}: {result.why}, {result.size_mb:.1f} MB")
    kind = TorchClassifier if method in ("bf16", "fp16") else OnnxClassifier
    again = kind(tmp_path / "small")
    assert again.labels == ("numpy", "torch", "pandas")
    np.testing.assert_allclose(again.predict(some_texts), after, atol=0.5)


@pytest.mark.parametrize("method", ["dynamic-int8", "static-int8", "weight-int4"])
def test_no_large_matrix_is_left_in_float(method, tiny_teacher_folder, some_texts, tmp_path):
    quantize(tiny_teacher_folder, method, texts=some_texts, out=tmp_path / "small")
    constants = onnx.load(tmp_path / "small" / "model.onnx").graph.initializer
    floats = {t.name: t.dims for t in constants if t.data_type == onnx.TensorProto.FLOAT}
    assert [name for name, dims in floats.items() if len(dims) == 2 and min(dims) > 2] == []
    words = [t for t in constants if t.name.endswith("word_embeddings.weight_quantized")]
    assert [(list(t.dims), t.data_type) for t in words] == [([120, 32], onnx.TensorProto.INT8)]
    scales = floats["model.bert.embeddings.word_embeddings.weight_scale"]
    assert list(scales) == [120, 1]  # a row each


def test_half_precision_is_an_ordinary_folder_of_half_the_bytes(tiny_teacher_folder, tmp_path):
    result = quantize(tiny_teacher_folder, "bf16", out=tmp_path / "half")
    assert size_mb(tmp_path / "half") == pytest.approx(size_mb(tiny_teacher_folder) / 2, rel=0.1)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half")
    assert loaded.dtype == result.classifier.model.dtype == torch.bfloat16


def test_a_result_is_measured_like_any_classifier(tiny_teacher_folder, some_texts):
    result = quantize(tiny_teacher_folder, "dynamic-int8")
    before = TorchClassifier(tiny_teacher_folder)
    names = [row["name"] for row in speed([before, result.classifier], some_texts[:2], rounds=1)]
    assert names == ["tiny-teacher", "tiny-teacher dynamic-int8"]


def test_without_a_folder_the_files_go_with_the_result(tiny_teacher_folder):
    result = quantize(tiny_teacher_folder, "fp16")
    path = result.path
    assert (path / "model.safetensors").is_file()
    del result
    assert not path.exists()


def test_a_model_in_memory_is_left_as_it_was(model, tokenizer, some_texts):
    before = copy.deepcopy(model.state_dict())
    model.train()
    result = quantize(model, "dynamic-int8", tokenizer=tokenizer)
    assert result.predict(some_texts).shape == (len(some_texts), 3)
    assert model.training
    assert model.dtype == torch.float32
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_calibration_can_be_chosen(tiny_teacher_folder, some_texts):
    answers = [
        quantize(tiny_teacher_folder, "static-int8", texts=some_texts, calibration=name).predict(
            some_texts
        )
        for name in ("min-max", "entropy")
    ]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


# Back-ends


def test_torch_ao_quantizes_layers_and_tables_while_it_lasts(model, tokenizer, some_texts):
    pytest.importorskip("torch.ao.quantization")
    before = TorchClassifier.of(copy.deepcopy(model), tokenizer, name="b").predict(some_texts)
    result = quantize(model, "dynamic-int8", backend="torch.ao", tokenizer=tokenizer)
    assert np.corrcoef(before.ravel(), result.predict(some_texts).ravel())[0, 1] > 0.99
    assert result.path is None
    assert "asked for" in result.why
    kinds = {type(part).__module__ for part in result.classifier.model.modules()}
    assert any("quantized.dynamic" in kind for kind in kinds)
    assert not any(p.dim() > 1 for p in result.classifier.model.parameters())
    with pytest.raises(ModelError, match="already"):
        quantize(result.classifier.model, "dynamic-int8", tokenizer=tokenizer)


def test_torchao_s_int8_where_it_is_installed(model, tokenizer, some_texts):
    pytest.importorskip("torchao")
    before = TorchClassifier.of(copy.deepcopy(model), tokenizer, name="b").predict(some_texts)
    result = quantize(model, "dynamic-int8", backend="torchao", tokenizer=tokenizer)
    assert np.corrcoef(before.ravel(), result.predict(some_texts).ravel())[0, 1] > 0.99
    with pytest.raises(ModelError, match="already"):
        quantize(result.classifier.model, "dynamic-int8", tokenizer=tokenizer)


def test_torchao_s_int4_where_it_is_installed(model, tokenizer, some_texts):
    pytest.importorskip("torchao")
    result = quantize(model, "weight-int4", backend="torchao", tokenizer=tokenizer)
    for before, after in zip(
        model.bert.encoder.layer, result.classifier.model.bert.encoder.layer, strict=True
    ):
        weight = before.output.dense.weight.detach()
        lost = (after.output.dense.weight.dequantize() - weight).norm() / weight.norm()
        assert 0.03 < lost < 0.15  # seven steps on either side of zero
    assert np.isfinite(result.predict(some_texts)).all()
    with pytest.raises(ModelError, match="already"):
        quantize(result.classifier.model, "weight-int4", tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("method", "backend", "words"),
    [("int8", "auto", "no method 'int8'"), ("static-int8", "torchao", "does not do"),
     ("dynamic-int8", "tensorrt", "does not do")],
)  # fmt: skip
def test_what_does_not_exist_is_refused(tiny_teacher_folder, method, backend, words):
    with pytest.raises(ModelError, match=words):
        quantize(tiny_teacher_folder, method, backend=backend, texts=["a"])


# Warnings


def test_int8_without_dot_products_is_warned_of(features, tiny_teacher_folder):
    features("avx2", "avx512f")
    assert "Old CPU has no 8-bit dot products" in slower_here("dynamic-int8")
    assert slower_here("dynamic-int8") == slower_here("static-int8") == slower_here("weight-int4")
    result = quantize(tiny_teacher_folder, "dynamic-int8")
    assert result.warnings == (slower_here("dynamic-int8"),)
    assert "Old CPU" in str(result)


def test_static_weights_keep_7_bits_without_dot_products(
    features, tiny_teacher_folder, some_texts, tmp_path
):
    features("avx2")
    quantize(tiny_teacher_folder, "static-int8", texts=some_texts, out=tmp_path / "small")
    constants = onnx.load(tmp_path / "small" / "model.onnx").graph.initializer
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in constants
        if t.name.endswith("_quantized") and "embeddings" not in t.name
    ]
    assert max(np.abs(w.astype(int)).max() for w in weights) == 63


def test_few_calibration_texts_are_noted(tiny_teacher_folder, some_texts):
    few = quantize(tiny_teacher_folder, "static-int8", texts=some_texts[:1])
    assert any("1 texts" in warning for warning in few.warnings)
    enough = quantize(tiny_teacher_folder, "static-int8", texts=some_texts)
    assert not any("texts" in warning for warning in enough.warnings)


def test_a_pruned_model_becomes_smaller_still(model, tokenizer, some_texts):
    heads = ((0,), (0, 1, 2, 3), (1, 2), (0, 3))
    small = remove(model, Kept(heads, tuple(tuple(range(16)) for _ in range(4))))
    before = TorchClassifier.of(small, tokenizer, name="pruned").predict(some_texts)
    whole = quantize(model, "dynamic-int8", tokenizer=tokenizer)
    result = quantize(small, "dynamic-int8", tokenizer=tokenizer)
    assert np.corrcoef(before.ravel(), result.predict(some_texts).ravel())[0, 1] > 0.98
    assert result.size_mb < whole.size_mb


# Bad input


@pytest.mark.parametrize("texts", [None, [], "one text", ["", "  "]])
def test_static_needs_texts_with_words(tiny_teacher_folder, texts, tmp_path):
    with pytest.raises(DataError, match="texts"):
        quantize(tiny_teacher_folder, "static-int8", texts=texts, out=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_an_unknown_calibration_is_refused(tiny_teacher_folder):
    with pytest.raises(ModelError, match="no calibration 'mse'"):
        quantize(tiny_teacher_folder, "static-int8", texts=["a"], calibration="mse")


def test_quantized_twice_is_refused(tiny_onnx, model, tokenizer):
    with pytest.raises(ModelError, match="ONNX model"):
        quantize(tiny_onnx["int8"][0], "dynamic-int8")
    with pytest.raises(ModelError, match="already"):
        quantize(int8_model(model), "dynamic-int8", tokenizer=tokenizer)


def test_models_that_are_no_classifiers_are_refused(tokenizer, model):
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        quantize(BertForMaskedLM(config), "dynamic-int8", tokenizer=tokenizer)
    with pytest.raises(ModelError, match="tokenizer"):
        quantize(model, "dynamic-int8")
    trimmed = trim_vocabulary(model, tokenizer, tokens_to_keep(tokenizer, [], at_least=100))
    with pytest.raises(ModelError, match="tokenizer has 120 tokens, the model 100"):
        quantize(trimmed.model, "dynamic-int8", tokenizer=tokenizer)


def test_the_model_is_not_replaced_by_its_own_quantization(tiny_teacher_folder):
    with pytest.raises(OutputError, match="would replace"):
        quantize(tiny_teacher_folder, "bf16", out=tiny_teacher_folder)
    assert TorchClassifier(tiny_teacher_folder).model.dtype == torch.float32


def test_nothing_but_a_model_is_replaced(tiny_teacher_folder, tokenizer, tmp_path, monkeypatch):
    models = tmp_path / "models"
    teacher = Path(shutil.copytree(tiny_teacher_folder, models / "teacher"))
    loaded = AutoModelForSequenceClassification.from_pretrained(teacher)
    (models / "work").mkdir()
    (models / "work" / "thesis.txt").write_text("years")
    before = _contents(models)
    for out, why in (
        (models, "made from"),
        (models / "work", "thesis.txt"),
        (models / "work" / "thesis.txt", "Not a directory"),
    ):
        with pytest.raises(OutputError, match=why):
            quantize(teacher, "bf16", out=out)
    with pytest.raises(OutputError, match="made from"):
        quantize(loaded, "bf16", tokenizer=tokenizer, out=teacher)
    (circle := tmp_path / "circle").symlink_to(circle)
    with pytest.raises(OutputError, match="Could not write"):
        quantize(teacher, "bf16", out=circle)
    monkeypatch.chdir(models)
    with pytest.raises(OutputError, match="you are in"):
        quantize("teacher", "bf16", out=".")
    assert _contents(models) == before
    for method in ("bf16", "dynamic-int8"):  # a model is replaced by a model
        quantize("teacher", method, out="small")
    assert (models / "small" / "model.onnx").is_file()


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pickles_are_not_written(tiny_teacher_folder, tmp_path):
    pytest.importorskip("torch.ao.quantization")
    with pytest.raises(OutputError, match="pickles"):
        quantize(tiny_teacher_folder, "dynamic-int8", backend="torch.ao", out=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_weight_beyond_float16_is_refused_and_bfloat16_holds_it(model, tokenizer, tmp_path):
    with torch.no_grad():
        model.classifier.weight[0, 0] = 1e5
    with pytest.raises(ModelError, match="beyond 65504"):
        quantize(model, "fp16", tokenizer=tokenizer, out=tmp_path / "small")
    assert not (tmp_path / "small").exists()
    assert np.isfinite(quantize(model, "bf16", tokenizer=tokenizer).predict(["the"])).all()
