"""A look at a task: against counting by hand, and the words for it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from transformers import AutoTokenizer

from course_utils.data import look as room
from course_utils.data.look import look, refuse_unknown
from course_utils.data.tasks import Task
from course_utils.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


def rows(texts: list[str], labels: list) -> Dataset:
    multi_label = isinstance(labels[0], list)
    kind = List(Value("int64")) if multi_label else Value("int64")
    return Dataset.from_dict(
        {"text": texts, "label": labels}, Features(text=Value("string"), label=kind)
    )


def task(train: list[str], labels: list | None = None, *, test: list[str] | None = None) -> Task:
    labels = labels or [k % 2 for k in range(len(train))]
    rest = rows(test or ["a matrix of rows", "the inverse"], labels[: len(test or "12")])
    multi_label = isinstance(labels[0], list)
    return Task("mine", ("neg", "pos"), rows(train, labels), rest, rest, multi_label=multi_label)


PLAIN = ["the array", "the line", "the rows", "a tensor"]


def test_a_task_without_trouble(tokenizer):
    seen = look(task(PLAIN * 3 + ["the " * k + "line" for k in range(8)]), tokenizer)
    assert seen.sizes == {"train": 20, "dev": 2, "test": 2}
    assert seen.classes == {"neg": 10, "pos": 10}
    assert (seen.largest_to_smallest, seen.unknown_share, seen.truncated_share) == (1, 0, 0)
    assert json.loads(json.dumps(seen.as_dict())) == seen.as_dict()


def test_lengths_are_the_tokenizers(tokenizer, some_texts):
    seen = look(task(some_texts), tokenizer, max_length=16)
    lengths = [len(tokenizer(text)["input_ids"]) for text in some_texts]
    assert seen.longest == max(lengths)
    assert seen.median_length == np.median(lengths)
    assert seen.p95_length == np.percentile(lengths, 95)
    assert seen.truncated_share == np.mean([n > 16 for n in lengths])
    assert f"! {seen.truncated_share:.1%} of the texts have more than 16 tokens" in "\n".join(
        seen.lines()
    )


def test_a_wildly_long_text_is_estimated_and_costs_little(tokenizer):
    seen = look(task([*PLAIN, "the line " * 500_000]), tokenizer)
    exact = 2 + 500_000 * (len(tokenizer("the line")["input_ids"]) - 2)
    assert seen.longest == pytest.approx(exact, rel=0.01)
    assert seen.truncated_share == 0.2


def test_at_most_so_many_texts_are_read(tokenizer, monkeypatch):
    monkeypatch.setattr(room, "SAMPLE", 4)
    seen = look(task([*["the"] * 9, "the line"]), tokenizer)  # read are rows 0, 3, 6 and 9
    assert seen.longest == len(tokenizer("the line")["input_ids"])
    assert seen.sizes["train"] == 10


def test_repeated_texts_and_different_labels(tokenizer):
    train = ["the", "the", "the", "line", "line", "array"]
    seen = look(task(train, [0, 0, 1, 1, 1, 0]), tokenizer)
    assert (seen.duplicates, seen.contradictions) == (3, 1)
    lines = seen.lines()
    assert "! 3 texts repeat earlier ones of train." in lines
    assert "! 1 text has different labels in train." in lines


def test_texts_of_test_that_are_in_train(tokenizer):
    seen = look(task(PLAIN, test=["the array", "new", "newer"]), tokenizer)
    assert seen.also_in_train == {"dev": 1, "test": 1}
    assert any(line.startswith("! Texts that are in train, too: 1 of dev") for line in seen.lines())
    with pytest.raises(DataError, match="2 of the 3 texts of dev are also in train"):
        look(task(PLAIN, test=["the array", "the line", "new"]), tokenizer)


def test_unknown_words_are_counted_as_words(tokenizer):
    """A word of several pieces is one; so is each Chinese character."""
    words = tokenizer.tokenize("unseen arrays")
    assert len(words) > 2
    assert "[UNK]" not in words
    seen = look(task(["unseen arrays 酒店", "the line"]), tokenizer)
    assert seen.unknown_share == 2 / 6
    with pytest.raises(DataError, match=r"33\.3% of the words") as error:
        refuse_unknown(seen)
    assert "--teacher" in error.value.do
    assert "--allow-unknown" in error.value.do
    refuse_unknown(seen, 0.34)
    assert seen.lines()[-1].startswith("! 33.3% of the words")


def test_several_labels_for_a_text(tokenizer):
    seen = look(task(PLAIN, [[0, 1], [1], [], [1]]), tokenizer)
    assert seen.classes == {"neg": 1, "pos": 3}
    assert seen.without_label == 1
    assert "Multi-label: 1.00 labels a text on average, 1 have none." in seen.lines()


def test_an_uneven_task_is_a_warning(tokenizer):
    texts = [f"the line {k}" for k in range(1001)]
    seen = look(task(texts, [0] * 1000 + [1]), tokenizer)
    assert seen.largest_to_smallest == 1000
    assert any(line.startswith("! The largest class has 1,000 times") for line in seen.lines())
    assert "! Fewer than 10 texts in train have: pos (1 in all)." in seen.lines()


def test_the_lines_are_few_and_short(tokenizer):
    calm = look(task([f"the array {c} {d}" for c in "abcdef" for d in "xyzv"]), tokenizer).lines()
    assert 6 <= len(calm) <= 12
    assert not any(line.startswith("!") and "[UNK]" not in line for line in calm)
    wild = look(task(["the"] * 40 + ["line " * 400, "the"], [0] * 41 + [1]), tokenizer).lines()
    assert 6 <= len(wild) <= 12
    assert max(map(len, calm + wild)) <= 120


@pytest.mark.weights
def test_chinese_with_the_vocabulary_that_came_with_the_course():
    from course_utils.data.sources import find_model

    bert = AutoTokenizer.from_pretrained(find_model(say=str).path)
    texts = [
        "酒店的房间很大，服务也不错。",
        "早餐太差，不会再来了。",
        "位置方便，价格合理。",
        "隔音很糟糕。",
    ]
    with pytest.raises(DataError, match="does not know this language"):
        refuse_unknown(look(task(texts), bert))
    refuse_unknown(look(task(["A fine café, naïve but good 🙂.", "Plot the line."]), bert))
