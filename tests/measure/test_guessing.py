"""Guesses of a masked-language model: the library's own losses, intervals over blocks, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import write_tokenizer
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
)

from course_utils import machine
from course_utils.data.masking import MaskedBlocks
from course_utils.errors import DataError
from course_utils.measure.guessing import Guesses, compare_guesses, guess, score_guesses

LENGTH = 16


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, 60)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    described = replace(machine.describe(), dtype="float32")
    monkeypatch.setattr("course_utils.measure.guessing.describe", lambda: described)


def some_blocks(tokenizer, n=10, **options):
    ids = torch.randint(5, len(tokenizer), (n, LENGTH), generator=torch.Generator().manual_seed(0))
    rows = Dataset.from_dict({"input_ids": ids.tolist()})
    return MaskedBlocks(rows, tokenizer, **options)


def a_model(tokenizer, family="bert"):
    torch.manual_seed(1)
    if family == "bert":
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes |= {"intermediate_size": 16, "max_position_embeddings": LENGTH}
        return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).eval()
    sizes = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    config = DistilBertConfig(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, **sizes)
    return DistilBertForMaskedLM(config).eval()


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_losses_and_words_are_the_librarys(tokenizer, family, batch_size):
    model, blocks = a_model(tokenizer, family).train(), some_blocks(tokenizer)
    found = guess(model, blocks, batch_size=batch_size)
    assert model.training
    items = [blocks[n] for n in range(len(blocks))]
    ids, labels = (torch.stack([item[name] for item in items]) for name in ("input_ids", "labels"))
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits[labels != -100]
    expected = F.cross_entropy(logits, labels[labels != -100], reduction="none").numpy()
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4)
    assert (found.words == logits.argmax(-1).numpy()).all()
    assert (found.labels == labels[labels != -100].numpy()).all()
    assert (found.blocks == (labels != -100).nonzero()[:, 0].numpy()).all()


def test_the_questions_do_not_depend_on_how_far_a_training_is(tokenizer):
    model, blocks = a_model(tokenizer), some_blocks(tokenizer)
    before = guess(model, blocks)
    blocks.set_epoch(3)
    assert (guess(model, blocks).labels == before.labels).all()


def made_up(losses, right, blocks, teacher=None):
    labels = np.zeros(len(losses), int)
    return Guesses(labels, np.where(right, 0, 1), np.array(losses, float), np.array(blocks))


def test_scores_are_what_their_names_say():
    student = made_up([1, 2, 3], [True, False, False], [0, 0, 1])
    teacher = made_up([1, 1, 1], [True, True, False], [0, 0, 1])
    scores = score_guesses(student, teacher=teacher)
    assert scores["perplexity"] == pytest.approx(np.exp(2))
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["agreement"] == pytest.approx(2 / 3)
    assert "agreement" not in score_guesses(student)


def test_the_interval_is_that_of_whole_blocks():
    generator = np.random.default_rng(0)
    means = generator.normal(3, 1, 200)  # blocks differ, the tokens in one do not
    losses, blocks = means.repeat(10), np.arange(200).repeat(10)
    scores = score_guesses(made_up(losses, losses < 3, blocks))
    low, high = np.log([scores["perplexity_low"], scores["perplexity_high"]])
    assert (high - low) / 2 == pytest.approx(1.96 * means.std() / 200**0.5, rel=0.1)
    assert low < losses.mean() < high
    assert scores["accuracy_low"] < scores["accuracy"] < scores["accuracy_high"]


def test_two_models_are_compared_block_by_block():
    generator = np.random.default_rng(0)
    hard, blocks = generator.normal(3, 1, 200).repeat(10), np.arange(200).repeat(10)
    noise = generator.normal(0, 0.1, 2000)
    ours = made_up(hard - 0.1 + noise, generator.random(2000) < 0.6, blocks)
    other = made_up(hard, generator.random(2000) < 0.5, blocks)
    teacher = made_up(hard, [True] * 2000, blocks)
    alone, lead = score_guesses(ours), compare_guesses(ours, other, teacher=teacher)
    expected = alone["perplexity"] / score_guesses(other)["perplexity"]
    assert lead["perplexity_ratio"] == pytest.approx(expected)
    assert lead["perplexity_ratio_low"] < expected < lead["perplexity_ratio_high"] < 1
    assert alone["perplexity_high"] / alone["perplexity"] > 1.1  # how hard a block is, is gone
    assert lead["perplexity_ratio_high"] / expected < 1.01
    gain = np.mean(ours.words == 0) - np.mean(other.words == 0)
    assert lead["agreement_gain"] == pytest.approx(gain)
    assert 0 < lead["agreement_gain_low"] < gain < lead["agreement_gain_high"]


def test_equal_seeds_give_equal_intervals():
    some = made_up(range(20), [True] * 10 + [False] * 10, np.arange(20) // 2)
    assert score_guesses(some, seed=1) == score_guesses(some, seed=1)
    assert score_guesses(some, seed=1) != score_guesses(some, seed=2)


def test_other_questions_cannot_be_compared(tokenizer):
    model = a_model(tokenizer)
    ours = guess(model, some_blocks(tokenizer))
    for theirs in (some_blocks(tokenizer, seed=1), some_blocks(tokenizer, n=4)):
        with pytest.raises(DataError, match="other tokens"):
            score_guesses(ours, teacher=guess(model, theirs))
        with pytest.raises(DataError, match="other tokens"):
            compare_guesses(ours, guess(model, theirs), teacher=ours)


def test_nothing_hidden_and_no_room_are_refused(tokenizer):
    model = a_model(tokenizer)
    with pytest.raises(DataError, match="No token is hidden"):
        guess(model, some_blocks(tokenizer, share=0.0))
    long = Dataset.from_dict({"input_ids": [[5] * (LENGTH + 1)]})
    with pytest.raises(DataError, match="17 tokens; the model reads 16"):
        guess(model, MaskedBlocks(long, tokenizer))
