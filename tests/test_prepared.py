"""Models the notebooks share: made once, found again, made anew when anything has changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
)

from course_utils import prepared
from course_utils.data.sources import find_model
from course_utils.data.tasks import load_task

pytestmark = pytest.mark.weights


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """An empty cache, the smallest sizes, and the course's reviews in the place of PyDocs."""
    reviews = load_task("reviews", say=lambda line: None)
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(prepared, "load_task", lambda *args, **options: reviews)
    monkeypatch.setattr(prepared, "read_corpus", lambda *args, **options: reviews.train)
    return reviews


@pytest.mark.parametrize("make", [prepared.pydocs_teacher, prepared.masked_lm_teacher])
def test_a_model_is_trained_once_and_then_kept(make):
    said: list[str] = []
    folder = make(say=said.append)
    again = make(say=said.append)
    assert folder == again
    assert [line for line in said if folder.name in line] == [
        f"{folder.name}: working",
        f"{folder.name}: kept from an earlier run",
    ]


def test_the_teacher_knows_its_labels_and_has_learned(small):
    folder = prepared.pydocs_teacher(say=lambda line: None)
    teacher = AutoModelForSequenceClassification.from_pretrained(folder)
    assert tuple(teacher.config.id2label.values()) == small.labels
    start = BertModel.from_pretrained(find_model(say=lambda line: None).path).state_dict()
    moved = teacher.bert.state_dict()["encoder.layer.5.output.dense.weight"]
    assert not torch.equal(moved, start["encoder.layer.5.output.dense.weight"])
    assert AutoTokenizer.from_pretrained(folder)("a word")["input_ids"][0] == 101


def test_the_masked_language_head_is_tied_and_trained():
    model, loaded = BertForMaskedLM.from_pretrained(
        prepared.masked_lm_teacher(say=lambda line: None), output_loading_info=True
    )
    assert not loaded["missing_keys"]
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.bias.any()  # new ones are zero


def test_a_torn_file_and_other_texts_mean_training_again(small, monkeypatch):
    said: list[str] = []
    folder = prepared.pydocs_teacher(say=said.append)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    prepared.pydocs_teacher(say=said.append)
    assert said[-1].endswith("working")
    other = replace(small, train=small.train.shuffle(seed=1))
    monkeypatch.setattr(prepared, "load_task", lambda *args, **options: other)
    prepared.pydocs_teacher(say=said.append)
    assert said[-1].endswith("working")
