"""Filling the caches: what is there is told, what can be carried is named, nothing stands in."""

from __future__ import annotations

import shutil

import pytest
from datasets import Dataset

from course_utils import fetch as filling
from course_utils import prepared
from course_utils.data import pydocs
from course_utils.data.sources import MINILM, Found
from course_utils.errors import DataError, ModelError


@pytest.fixture
def cache(tmp_path, monkeypatch, tiny_teacher_folder):
    """A cache in which everything heavy is a small stand-in."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("COURSE_PROFILE", "smoke")

    def teacher(name):
        def kept(say):
            shutil.copytree(tiny_teacher_folder, tmp_path / "prepared" / name, dirs_exist_ok=True)
            (tmp_path / "prepared" / "run.json").write_text("{}")
            return tmp_path / "prepared" / name

        return kept

    def corpus(progress=True):
        pydocs.corpus_folder().mkdir(parents=True, exist_ok=True)
        return texts

    texts = Dataset.from_dict({"text": ["a text of some words"] * 400})
    texts = texts.add_column("split", ["train"] * 400)
    monkeypatch.setattr(prepared, "pydocs_teacher", teacher("pydocs_teacher"))
    monkeypatch.setattr(prepared, "masked_lm_teacher", teacher("masked_lm_teacher"))
    monkeypatch.setattr(pydocs, "corpus", corpus)
    monkeypatch.setattr(
        filling, "find_model", lambda name=None, say=print: Found(MINILM, tmp_path, "built-in")
    )
    return tmp_path


def test_everything_that_can_be_carried_is_named(cache):
    first, second = [], []
    parts = filling.fetch(say=first.append)
    assert filling.fetch(say=second.append) == parts
    assert "PyDocs: 400 texts, built now" in first
    assert "PyDocs: 400 texts, there already" in second
    assert all(part.exists() for part in parts)
    places = {part.relative_to(cache).as_posix() for part in parts}
    made = {name for name in places if name.startswith(("pydocs/", "blocks/"))}
    teachers = {"prepared/pydocs_teacher", "prepared/masked_lm_teacher", "prepared/run.json"}
    assert places - made == teachers
    assert len(made) == 2
    folders = {path.name for path in (cache / "blocks").iterdir()}
    assert folders == {name.split("/")[1] for name in made if name.startswith("blocks/")}


def test_a_model_that_was_named_is_not_replaced_by_another(cache):
    with pytest.raises(ModelError, match="bert-base-uncased cannot be had"):
        filling.fetch(models=["bert-base-uncased"], say=lambda line: None)


def test_data_that_cannot_be_had_is_said(cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    with pytest.raises(DataError, match="No data set 'no_such_set'"):
        filling.fetch(data=["no_such_set"], say=lambda line: None)
