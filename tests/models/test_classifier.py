"""A classifier folder in PyTorch: right logits in the right order, and clear refusals."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

from course_utils.errors import DataError, ModelError
from course_utils.models.classifier import TorchClassifier
from course_utils.models.protocol import labels_of, pad


@pytest.fixture(scope="module")
def classifier(tiny_teacher_folder):
    return TorchClassifier(tiny_teacher_folder)


@pytest.fixture
def copy(tiny_teacher_folder, tmp_path):
    return shutil.copytree(tiny_teacher_folder, tmp_path / "copy")


@torch.no_grad()
def one_by_one(folder, texts):
    """The obvious way: each text alone, no padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = [tokenizer(t, truncation=True, max_length=64, return_tensors="pt") for t in texts]
    return torch.cat([model(**e).logits for e in encoded]).numpy()


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_predict_keeps_the_order_and_ignores_padding(
    classifier, tiny_teacher_folder, some_texts, batch_size
):
    logits = classifier.predict(some_texts, batch_size)
    assert logits.shape == (40, 3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, one_by_one(tiny_teacher_folder, some_texts), atol=1e-5)
    leanings = (logits - logits.mean(axis=0)).argmax(axis=1)
    assert set(leanings) == {0, 1, 2}  # the texts differ, or the comparison would say little


def test_predict_puts_like_lengths_in_one_batch(classifier, some_texts, monkeypatch):
    seen = []
    real = classifier.logits
    monkeypatch.setattr(classifier, "logits", lambda e: seen.append(e) or real(e))
    classifier.predict(some_texts, 8)
    lengths = [e["attention_mask"].sum(1) for e in seen]
    assert [len(row) for row in lengths] == [8] * 5
    assert all(a.max() <= b.min() for a, b in itertools.pairwise(lengths))


def test_encode_pads_to_the_longest_and_marks_padding(classifier):
    encoded = classifier.encode(["the", "the array"])
    assert {k: v.dtype for k, v in encoded.items()} == dict.fromkeys(encoded, np.dtype(np.int64))
    short, long = encoded["input_ids"]
    assert encoded["attention_mask"].sum(1).tolist() == [3, len(long)]
    assert (short[3:] == classifier.pad_token_id).all()
    assert short[0] == long[0] == classifier.tokenizer.cls_token_id


def test_long_texts_are_cut_to_the_positions_of_the_model(classifier):
    encoded = classifier.encode(["the array " * 200])
    assert encoded["input_ids"].shape == (1, 64)
    assert encoded["input_ids"][0, -1] == classifier.tokenizer.sep_token_id
    assert np.isfinite(classifier.logits(encoded)).all()


def test_labels_stand_in_the_order_of_the_logits(classifier):
    assert classifier.labels == ("numpy", "torch", "pandas")
    assert labels_of({str(k): f"l{k}" for k in reversed(range(12))})[-2:] == ("l10", "l11")


def test_pad():
    batch = pad([[5, 6, 7], [8]], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_model_in_memory_is_wrapped_not_copied(tiny_teacher_folder, some_texts):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder).train()
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    classifier = TorchClassifier.of(model, tokenizer, name="mine")
    assert classifier.name == "mine"
    before = classifier.predict(some_texts)
    np.testing.assert_allclose(before, one_by_one(tiny_teacher_folder, some_texts), atol=1e-5)
    model.train()  # training goes on; the classifier must not answer with dropout
    np.testing.assert_array_equal(classifier.predict(some_texts), before)
    with torch.no_grad():
        model.classifier.bias += 1
    np.testing.assert_allclose(classifier.predict(some_texts), before + 1, atol=1e-5)


def test_another_dtype_still_gives_float32_logits(tiny_teacher_folder, classifier, some_texts):
    half = TorchClassifier(tiny_teacher_folder, name="bf16", dtype=torch.bfloat16)
    logits = half.predict(some_texts)
    assert logits.dtype == np.float32
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert 0 < np.abs(logits - classifier.predict(some_texts)).max() < 0.2


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("one text", "One text"),
        ([], "no text"),
        (["\ud800 the"], r"'\\ud800' stands for"),
        (["the", None], "no text but NoneType"),
        ([1], "no text but int"),
    ],
)
@pytest.mark.parametrize("method", ["encode", "predict"])
def test_no_list_of_texts(classifier, texts, words, method):
    with pytest.raises(DataError, match=words):
        getattr(classifier, method)(texts)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        TorchClassifier(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).rename(copy / "pytorch_model.bin")  # a pickle's name: it must not be tried
    with pytest.raises(ModelError, match=f"lacks {name}"):
        TorchClassifier(copy)


def test_weights_that_are_cut_short(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        TorchClassifier(copy)


@pytest.mark.parametrize("content", ["cut", "{}", "[]"])
def test_a_tokenizer_that_is_damaged(copy, content):
    file = copy / "tokenizer.json"
    file.write_text(file.read_text()[:1000] if content == "cut" else content)
    with pytest.raises(ModelError, match="This tokenizer cannot be loaded"):
        TorchClassifier(copy)


def test_an_encoder_without_head_is_no_classifier(copy):
    BertModel.from_pretrained(copy).save_pretrained(copy)
    with pytest.raises(ModelError, match=r"classifier\.weight"):
        TorchClassifier(copy)


def test_weights_of_another_shape_are_named(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ModelError, match=r"intermediate\.dense.* and \d+ more"):
        TorchClassifier(copy)


def test_the_protocol_needs_no_torch():
    code = "import sys, course_utils.models.protocol; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
