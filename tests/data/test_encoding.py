"""Texts as ids: cut, padded, and kept together with what goes with them."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from course_utils.data.encoding import (
    MAX_LENGTH,
    EncodedTexts,
    PadBatch,
    encode,
    label_tensor,
    pad,
)
from course_utils.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


def test_ids_are_the_tokenizers_own(tokenizer, some_texts):
    texts = encode(tokenizer, some_texts)
    assert len(texts) == len(some_texts)
    for ids, text in zip(texts.input_ids, some_texts, strict=True):
        assert ids == tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_labels_go_with_their_texts(tokenizer):
    texts = encode(tokenizer, ["Plot the line.", "the", "A tensor moves."], [2, 0, 1])
    assert texts.columns["labels"].dtype == torch.int64
    assert [int(texts[i]["labels"]) for i in range(3)] == [2, 0, 1]
    assert texts[1] == {"input_ids": tokenizer("the")["input_ids"], "labels": torch.tensor(0)}


def test_the_fingerprint_knows_ids_and_order(tokenizer):
    one, same = (encode(tokenizer, ["the line", "the"]).fingerprint for _ in range(2))
    others = [encode(tokenizer, t).fingerprint for t in (["the", "the line"], ["the line", "a"])]
    assert one == same
    assert len({one, *others}) == 3


def test_without_labels_none_counts(tokenizer):
    labels = encode(tokenizer, ["the", "the line"]).columns["labels"]
    assert labels.tolist() == [-100, -100]
    assert labels.dtype == torch.int64


def test_columns_of_a_data_set_will_do(tokenizer):
    rows = Dataset.from_dict({"text": ["the", "Plot the line."], "label": [1, 0]})
    texts = encode(tokenizer, rows["text"], rows["label"])
    assert texts.input_ids == [tokenizer(text)["input_ids"] for text in ("the", "Plot the line.")]
    assert texts.columns["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("n", [0, 1])
def test_few_texts_or_none(tokenizer, n):
    texts = encode(tokenizer, ["the"] * n)
    assert len(texts) == len(texts.input_ids) == len(texts.columns["labels"]) == n


@pytest.mark.parametrize("max_length", [3, 7, 64])
def test_long_texts_are_cut(tokenizer, max_length):
    long, short = encode(tokenizer, ["the line " * 500, "the"], max_length=max_length).input_ids
    assert len(long) == max_length
    assert (long[0], long[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert len(short) == len(tokenizer("the")["input_ids"])


def test_the_usual_cut(tokenizer):
    assert len(encode(tokenizer, ["the line " * 500]).input_ids[0]) == MAX_LENGTH == 128


@pytest.mark.parametrize(
    "text", ["", "   ", "\0\x01", "你好，世界", "🙂" * 30, "a" * 10_000, "\u200b"]
)
def test_odd_texts_are_texts(tokenizer, text):
    ids = encode(tokenizer, [text, "the"]).input_ids[0]
    assert 2 <= len(ids) <= MAX_LENGTH
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert all(0 <= i < len(tokenizer) for i in ids)


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], []])
def test_a_wrong_number_of_labels_is_refused(tokenizer, labels):
    with pytest.raises(DataError, match=rf"2 texts, but .*'labels': {len(labels)}"):
        encode(tokenizer, ["the", "line"], labels)


def test_a_wrong_number_of_rows_is_refused():
    with pytest.raises(DataError, match=r"1 texts, but .*'logits': 2") as error:
        EncodedTexts([[1]], labels=torch.zeros(1), logits=torch.zeros(2, 3))
    assert "labels" not in str(error.value)
    with pytest.raises(DataError, match="'logits': 3"):
        EncodedTexts([[1]]).with_columns(logits=torch.zeros(3, 1))


def test_columns_are_added_or_replaced_and_nothing_is_copied():
    ids, labels, logits = [[1, 2], [3]], torch.tensor([0, 1]), torch.randn(2, 4)
    first = EncodedTexts(ids, labels=labels)
    second = first.with_columns(logits=logits)
    assert second.input_ids is ids
    assert second.columns["labels"] is labels
    assert second.columns["logits"] is logits
    assert set(first.columns) == {"labels"}
    assert torch.equal(second[1]["logits"], logits[1])
    third = second.with_columns(labels=torch.tensor([5, 6]))
    assert third.columns["labels"].tolist() == [5, 6]
    assert second.columns["labels"].tolist() == [0, 1]


def test_pad_against_the_obvious_way():
    random = np.random.default_rng(0)
    rows = [random.integers(1, 50, size=n).tolist() for n in (1, 9, 4, 9)]
    batch = pad(rows, 7)
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    expected = torch.full((4, 9), 7)
    mask = torch.zeros(4, 9, dtype=torch.int64)
    for i, row in enumerate(rows):
        for j, token in enumerate(row):
            expected[i, j], mask[i, j] = token, 1
    assert torch.equal(batch["input_ids"], expected)
    assert torch.equal(batch["attention_mask"], mask)
    assert list(map(len, rows)) == [1, 9, 4, 9]


def test_a_token_equal_to_the_padding_counts():
    assert pad([[0, 5, 0], [5]], 0)["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(("longest", "padded"), [(1, 8), (8, 8), (9, 16), (127, 128)])
def test_a_batch_is_padded_to_a_multiple_of_eight(longest, padded):
    texts = EncodedTexts([[5] * longest, [6]], labels=torch.tensor([0, 1]))
    batch = PadBatch(9)([texts[0], texts[1]])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, padded)
    assert batch["attention_mask"].sum(dim=1).tolist() == [longest, 1]
    assert batch["input_ids"][1].tolist() == [6] + [9] * (padded - 1)


def test_a_batch_holds_what_goes_with_its_texts():
    texts = EncodedTexts(
        [[1, 2, 3, 4], [5], [6, 7]],
        labels=torch.tensor([0, 1, -100]),
        logits=torch.arange(6.0).reshape(3, 2),
        hidden=torch.randn(3, 2, 5, dtype=torch.bfloat16),
    )
    batch = PadBatch(9)([texts[2], texts[1]])
    assert {name: tuple(rows.shape) for name, rows in batch.items()} == {
        "input_ids": (2, 8),
        "attention_mask": (2, 8),
        "labels": (2,),
        "logits": (2, 2),
        "hidden": (2, 2, 5),
    }
    assert batch["input_ids"].tolist() == [[6, 7] + 6 * [9], [5] + 7 * [9]]
    assert batch["labels"].tolist() == [-100, 1]
    assert batch["logits"].tolist() == [[4.0, 5.0], [2.0, 3.0]]
    assert batch["hidden"].dtype == torch.bfloat16
    assert torch.equal(batch["hidden"][0], texts.columns["hidden"][2])


def test_items_may_be_collated_twice():
    texts = EncodedTexts([[1, 2], [3]], labels=torch.tensor([0, 1]))
    items = [texts[0], texts[1]]
    first, second = PadBatch(0)(items), PadBatch(0)(items)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert texts.input_ids == [[1, 2], [3]]


def test_a_loader_returns_every_text_once(tokenizer, some_texts):
    texts = encode(tokenizer, some_texts, range(len(some_texts)))
    collate = PadBatch(tokenizer.pad_token_id)
    loader = torch.utils.data.DataLoader(texts, batch_size=7, shuffle=True, collate_fn=collate)
    seen = {}
    for batch in loader:
        for ids, mask, label in zip(*batch.values(), strict=True):
            seen[int(label)] = ids[mask.bool()].tolist()
    assert [seen[i] for i in range(len(some_texts))] == texts.input_ids


def test_labels_as_the_losses_take_them():
    one = label_tensor([2, 0, None, -100], 3)
    assert (one.dtype, one.tolist()) == (torch.int64, [2, 0, -100, -100])
    several = label_tensor([[0, 2], [], None], 3, multi_label=True)
    assert several.dtype == torch.float32
    assert several.tolist() == [[1, 0, 1], [0, 0, 0], [-100, -100, -100]]
    assert label_tensor([], 3, multi_label=True).shape == (0, 3)


@pytest.mark.parametrize(("labels", "multi_label"), [([3], False), ([-1], False), ([[0, 3]], True)])
def test_a_number_without_a_class_is_refused(labels, multi_label):
    with pytest.raises(DataError, match=r"no class number (3|-1): there are 3"):
        label_tensor(labels, 3, multi_label)
