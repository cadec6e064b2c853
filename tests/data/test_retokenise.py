"""Ids in the tokens of a smaller vocabulary: as the smaller tokenizer would have made them."""

import random

import pytest
import torch
from tiny import TEXTS
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from course_utils.compress.vocabulary import tokens_to_keep, trim_vocabulary
from course_utils.data.encoding import encode
from course_utils.data.retokenise import retokenised


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture(scope="module")
def model(tiny_teacher_folder):
    return AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)


def smaller(model, tokenizer, seed):
    """A tokenizer that has lost a random half of the tokens that may go."""
    always = tokens_to_keep(tokenizer, [], at_least=0, at_most=0)
    others = sorted(set(range(len(tokenizer))) - set(always))
    some = random.Random(seed).sample(others, len(others) // 2)
    return trim_vocabulary(model, tokenizer, [*always, *some]).tokenizer


@pytest.mark.parametrize("seed", range(5))
def test_ids_are_those_that_the_smaller_tokenizer_makes_of_the_text(model, tokenizer, seed):
    new = smaller(model, tokenizer, seed)
    old = encode(tokenizer, TEXTS, max_length=64)
    expected = encode(new, TEXTS, max_length=64).input_ids
    made = retokenised(old, tokenizer, new, max_length=64)
    assert made.input_ids == expected
    assert sum(map(len, expected)) > sum(map(len, old.input_ids))  # some words fell into pieces


def test_with_the_same_vocabulary_nothing_changes(tokenizer):
    old = encode(tokenizer, TEXTS, max_length=64)
    assert retokenised(old, tokenizer, tokenizer, max_length=64).input_ids == old.input_ids


def test_a_text_that_grows_too_long_keeps_its_last_token_and_columns_stay(model, tokenizer):
    new = smaller(model, tokenizer, 0)
    old = encode(tokenizer, TEXTS, list(range(len(TEXTS))), max_length=64)
    whole = retokenised(old, tokenizer, new, max_length=64).input_ids
    cut = retokenised(old, tokenizer, new, max_length=9)
    assert torch.equal(cut.columns["labels"], old.columns["labels"])
    for ids, full in zip(cut.input_ids, whole, strict=True):
        assert ids == (full if len(full) <= 9 else [*full[:8], new.sep_token_id])


def test_behind_a_hidden_token_a_lost_piece_is_unknown(model, tokenizer):
    """`##x` there begins no word: to split it as one would make a word that nobody wrote."""
    pieces = [(t, i) for t, i in tokenizer.get_vocab().items() if t.startswith("##") and len(t) > 3]
    keep = set(range(len(tokenizer))) - {pieces[0][1]}
    new = trim_vocabulary(model, tokenizer, keep).tokenizer
    cls, mask, sep = (getattr(tokenizer, f"{name}_token_id") for name in ("cls", "mask", "sep"))
    (_, lost), (name, kept) = pieces[:2]
    texts = encode(tokenizer, ["the"])
    texts.input_ids[0] = [cls, mask, lost, kept, sep]
    (ids,) = retokenised(texts, tokenizer, new, max_length=8).input_ids
    assert new.convert_ids_to_tokens(ids) == ["[CLS]", "[MASK]", "[UNK]", name, "[SEP]"]
