"""Masking: what is exact, and what holds on average over many tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from course_utils.data.encoding import encode
from course_utils.data.masking import MaskBatch, mask_tokens
from course_utils.errors import DataError, ModelError

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL, VOCABULARY = (PAD, UNK, CLS, SEP, MASK), 25
SETTINGS = {"special": SPECIAL, "mask_id": MASK, "vocab_size": VOCABULARY}


def ids(n: int = 400, length: int = 500) -> torch.Tensor:
    """(n, length) of all ids, special ones among them."""
    return torch.randint(VOCABULARY, (n, length), generator=seeded(1))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Exact


@pytest.mark.parametrize("share", [0.0, 0.15, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(3, 7), (50,), (0,), (2, 0), (2, 3, 40)])
def test_labels_are_the_original_ids_and_nothing_else_changes(shape, share):
    before = torch.randint(VOCABULARY, shape, generator=seeded(2))
    kept = before.clone()
    after, labels = mask_tokens(before, **SETTINGS, share=share, generator=seeded(0))
    assert torch.equal(before, kept)
    assert after.shape == labels.shape == before.shape
    assert after.dtype == labels.dtype == torch.int64
    chosen = labels != -100
    assert torch.equal(labels[chosen], before[chosen])
    assert torch.equal(after[~chosen], before[~chosen])


def test_special_tokens_are_neither_chosen_nor_drawn():
    before = ids()
    special = before < len(SPECIAL)
    after, labels = mask_tokens(before, **SETTINGS, share=1.0, generator=seeded(0))
    assert torch.equal(labels != -100, ~special)
    assert torch.equal(after[special], before[special])
    assert set(after[~special].tolist()) == {MASK, *range(5, VOCABULARY)}


def test_the_mask_is_special_without_being_named():
    before = torch.full((100,), MASK)
    after, labels = mask_tokens(before, special=(), mask_id=MASK, vocab_size=VOCABULARY, share=1.0)
    assert torch.equal(after, before)
    assert (labels == -100).all()


def test_nothing_and_everything():
    ordinary = ids().clamp(min=5)
    after, labels = mask_tokens(ordinary, **SETTINGS, share=0.0)
    assert torch.equal(after, ordinary)
    assert (labels == -100).all()
    assert torch.equal(mask_tokens(ordinary, **SETTINGS, share=1.0)[1], ordinary)


def test_equal_seeds_give_equal_masks():
    before, torch_state = ids(4, 50), torch.get_rng_state()
    first = mask_tokens(before, **SETTINGS, generator=seeded(3))
    again = mask_tokens(before, **SETTINGS, generator=seeded(3))
    other = mask_tokens(before, **SETTINGS, generator=seeded(4))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[1], other[1])
    assert torch.equal(torch.get_rng_state(), torch_state)


# On average


def within(share: float, expected: float, n: int) -> bool:
    """Whether a share of n independent trials is at most 5 standard deviations off."""
    return abs(share - expected) < 5 * (expected * (1 - expected) / n) ** 0.5


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_shares(share):
    before = ids()
    after, labels = mask_tokens(before, **SETTINGS, share=share, generator=seeded(0))
    eligible = before >= len(SPECIAL)
    chosen = labels != -100
    n, n_chosen = int(eligible.sum()), int(chosen.sum())
    assert within(n_chosen / n, share, n)
    is_mask, is_same = after[chosen] == MASK, after[chosen] == before[chosen]
    assert within(is_mask.float().mean().item(), 0.8, n_chosen)
    # A random token is the same token one time in 20, the number of ordinary tokens.
    assert within(is_same.float().mean().item(), 0.1 + 0.1 / 20, n_chosen)
    drawn = after[chosen][~is_mask & ~is_same]
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    assert counts[: len(SPECIAL)].sum() == 0
    assert all(within(c / len(drawn), 1 / 20, len(drawn)) for c in counts[5:].tolist())


def test_every_position_and_every_row_is_chosen_as_often():
    before = ids().clamp(min=5)
    chosen = mask_tokens(before, **SETTINGS, generator=seeded(0))[1] != -100
    assert all(within(share, 0.15, len(before)) for share in chosen.float().mean(0).tolist())
    assert all(within(share, 0.15, before.shape[1]) for share in chosen.float().mean(1).tolist())
    # Neighbours are chosen independently: both of two in 0.15² of the cases.
    both = (chosen[:, 1:] & chosen[:, :-1]).float().mean().item()
    assert within(both, 0.15**2, chosen.numel())


# Refused


@pytest.mark.parametrize("share", [-0.01, 1.01, 15, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(DataError, match="share of"):
        mask_tokens(ids(2, 3), **SETTINGS, share=share)


@pytest.mark.parametrize("junk", [-100, -1, VOCABULARY])
def test_ids_outside_the_vocabulary(junk):
    with pytest.raises(DataError, match=f"The id {junk} is not in a vocabulary of 25"):
        mask_tokens(torch.tensor([[5, junk]]), **SETTINGS)
    with pytest.raises(DataError, match=f"The special id {junk} is not"):
        mask_tokens(ids(2, 3), **SETTINGS | {"special": (PAD, junk)})
    with pytest.raises(DataError, match=f"The special id {junk} is not"):
        mask_tokens(ids(2, 3), **SETTINGS | {"mask_id": junk})


@pytest.mark.parametrize("junk", [[5, 6], torch.tensor([5.0]), torch.tensor([True])])
def test_what_is_no_tensor_of_ids(junk):
    with pytest.raises(DataError, match=r"whole numbers, these are (list|torch\.float32|torch\.b)"):
        mask_tokens(junk, **SETTINGS)


def test_a_vocabulary_of_special_tokens():
    with pytest.raises(DataError, match="none to draw"):
        mask_tokens(torch.tensor([0]), **SETTINGS | {"vocab_size": 5})


# The collator


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


def test_a_batch_is_padded_then_masked_and_differs_each_time(tokenizer, some_texts):
    texts = encode(tokenizer, some_texts)
    items = [texts[i] for i in range(len(texts))]
    collate = MaskBatch(tokenizer, share=0.5, seed=0)
    first, second = collate(items), collate(items)
    plain = collate.pad(items)
    for batch in (first, second):
        chosen = batch["labels"] != -100
        assert batch["labels"].shape == batch["input_ids"].shape
        assert torch.equal(batch["labels"][chosen], plain["input_ids"][chosen])
        assert torch.equal(batch["attention_mask"], plain["attention_mask"])
        special = torch.isin(plain["input_ids"], torch.tensor(tokenizer.all_special_ids))
        assert (~special).sum() > 300
        assert not (chosen & special).any()
        assert 0.4 < chosen.sum() / (~special).sum() < 0.6
    assert not torch.equal(first["labels"], second["labels"])
    again = MaskBatch(tokenizer, share=0.5, seed=0)(items)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = MaskBatch(tokenizer, share=0.5, seed=1)(items)
    assert not torch.equal(first["labels"], other["labels"])


def test_a_tokenizer_without_a_mask(tiny_teacher_folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match=r"no \[MASK\]"):
        MaskBatch(tokenizer)
