"""More texts: made of the given ones, with tokens hidden or guessed, the same for the same seed."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import AutoModel, AutoTokenizer

from course_utils.data.augment import mask_and_fill, varied, word_dropout
from course_utils.errors import DataError, ModelError
from course_utils.models.mlm import add_mlm_head

CLS, SEP, MASK = 1, 2, 3
TEXTS = [[CLS, *range(100 * k, 100 * k + 20), SEP] for k in range(1, 6)]


def made(n: int = 2000, seed: int = 0, max_length: int = 64) -> list[list[int]]:
    return varied(TEXTS, n, mask_id=MASK, max_length=max_length, seed=seed)


def test_each_is_one_or_two_of_the_given_texts_with_tokens_hidden():
    joined = 0
    for text in made():
        first, *tokens, last = text
        assert (first, last) == (CLS, SEP)
        assert len(tokens) in (20, 40)
        joined += len(tokens) == 40
        for start in range(0, len(tokens), 20):
            part = tokens[start : start + 20]
            whole = next(
                given[1:-1]
                for given in TEXTS
                if all(t in (MASK, g) for t, g in zip(part, given[1:-1], strict=True))
            )
            assert part.count(MASK) == sum(t != g for t, g in zip(part, whole, strict=True))
    assert joined / 2000 == pytest.approx(0.5, abs=0.05)


def test_a_tenth_of_the_tokens_is_hidden_and_no_special_one():
    tokens = [token for text in made() for token in text[1:-1]]
    assert tokens.count(MASK) / len(tokens) == pytest.approx(0.1, abs=0.01)


def test_every_given_text_is_used_about_as_often_as_the_others():
    beginnings = [next(t for t in text[1:] if t > MASK) // 100 for text in made()]
    assert {k: round(beginnings.count(k) / 2000, 1) for k in range(1, 6)} == dict.fromkeys(
        range(1, 6), 0.2
    )


def test_what_is_too_long_is_cut_before_the_last_special_token():
    texts = made(max_length=24)
    assert max(map(len, texts)) == 24
    assert all(text[-1] == SEP and SEP not in text[:-1] for text in texts)


def test_the_seed_decides_and_the_given_texts_stay_as_they_were():
    before = [list(text) for text in TEXTS]
    assert made(seed=1) == made(seed=1)
    assert made(seed=1) != made(seed=2)
    assert before == TEXTS


def test_a_text_of_special_tokens_alone_is_no_trouble():
    assert varied([[CLS, SEP]], 3, mask_id=MASK, max_length=8) == [[CLS, SEP]] * 3


# Word dropout


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_word_dropout_hides_that_share_and_no_special_token(share):
    texts = [[CLS, *range(100, 100 + k), SEP] for k in range(60)]
    made = word_dropout(texts, share, mask_id=MASK, seed=1)
    assert made == word_dropout(texts, share, mask_id=MASK, seed=1)
    assert len(made) == len(texts)
    for new, old in zip(made, texts, strict=True):
        assert len(new) == len(old)
        assert (new[0], new[-1]) == (CLS, SEP)
        assert all(a in (MASK, b) for a, b in zip(new[1:-1], old[1:-1], strict=True))
    tokens = [token for text in made for token in text[1:-1]]
    assert tokens.count(MASK) / len(tokens) == pytest.approx(share, abs=0.04)
    if share == 0.3:
        assert made != word_dropout(texts, share, mask_id=MASK, seed=2)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share, guesser, tokenizer):
    with pytest.raises(DataError, match="share"):
        word_dropout(TEXTS, share, mask_id=MASK)
    with pytest.raises(DataError, match="share"):
        mask_and_fill(guesser, tokenizer, [[2, 7, 3]], share=share)


# Mask and fill


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def guesser(tiny_teacher_folder, tokenizer):
    """With dropout, a head in which nothing is zero, and more rows than there are tokens."""
    encoder = AutoModel.from_pretrained(tiny_teacher_folder, dtype=torch.float32)
    encoder.resize_token_embeddings(len(tokenizer) + 3, mean_resizing=False)
    model = add_mlm_head(encoder).train()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.cls.predictions.bias)
    with torch.no_grad():  # its favourites are what it must never choose
        model.cls.predictions.bias[[0, 1, 2, 3, 4, len(tokenizer)]] = 50.0
    return model


@pytest.fixture
def rows(tokenizer):
    return tokenizer(tiny.TEXTS, return_attention_mask=False)["input_ids"]


def test_texts_keep_their_order_length_and_special_tokens(guesser, tokenizer, rows):
    before = [list(row) for row in rows]
    made = mask_and_fill(guesser, tokenizer, rows, share=0.5, n=3, batch_size=5)
    assert rows == before
    assert len(made) == 3 * len(rows)
    special = set(tokenizer.all_special_ids)
    for new, old in zip(made, rows * 3, strict=True):
        assert len(new) == len(old)
        for a, b in zip(new, old, strict=True):
            assert a == b if b in special else a not in special
        assert max(new) < len(tokenizer)
    assert made[: len(rows)] != made[len(rows) : 2 * len(rows)]


def test_the_seed_decides_and_the_model_is_left_as_it_was(guesser, tokenizer, rows):
    dice = torch.get_rng_state()
    weights = {name: w.clone() for name, w in guesser.state_dict().items()}
    one, same, other = (mask_and_fill(guesser, tokenizer, rows, seed=s) for s in (1, 1, 2))
    assert one == same  # with dropout on they would differ
    assert one != other
    assert guesser.training
    assert torch.equal(torch.get_rng_state(), dice)
    assert all(torch.equal(w, weights[name]) for name, w in guesser.state_dict().items())
    assert guesser(torch.tensor([rows[0]])).logits.ndim == 3  # nothing is left hanging on the head


def test_guesses_are_drawn_from_the_fifteen_likeliest_by_their_probability(guesser, tokenizer):
    text = tokenizer("the")["input_ids"]
    assert len(text) == 3
    drawn = [t[1] for t in mask_and_fill(guesser, tokenizer, [text], n=3000, batch_size=500)]
    masked = torch.tensor([[text[0], tokenizer.mask_token_id, text[2]]])
    with torch.no_grad():
        logits = guesser.eval()(masked).logits[0, 1, : len(tokenizer)]
    logits[tokenizer.all_special_ids] = -torch.inf
    best = logits.topk(15)
    probs = dict(zip(best.indices.tolist(), best.values.softmax(0).tolist(), strict=True))
    assert set(drawn) <= set(probs)
    for token, probability in probs.items():
        assert drawn.count(token) / 3000 == pytest.approx(probability, abs=0.04)


def test_about_that_share_changes_and_something_in_every_text(guesser, tokenizer, rows):
    ordinary = [t for t in range(len(tokenizer)) if t not in tokenizer.all_special_ids]
    long = [[2, *(ordinary * 2)[:50], 3]]
    hidden = []
    guesser.register_forward_pre_hook(
        lambda _, __, given: hidden.append(given["input_ids"] == tokenizer.mask_token_id),
        with_kwargs=True,
    )
    mask_and_fill(guesser, tokenizer, long, share=0.3, n=40)
    assert torch.cat(hidden).sum().item() / (40 * 50) == pytest.approx(0.3, abs=0.05)
    hidden.clear()
    mask_and_fill(guesser, tokenizer, rows, share=1e-6)
    assert torch.cat(hidden).sum(1).tolist() == [1] * len(rows)
    assert mask_and_fill(guesser, tokenizer, rows, share=0) == rows


def test_texts_without_an_ordinary_token_and_no_texts(guesser, tokenizer):
    assert mask_and_fill(guesser, tokenizer, [[2, 3], [2, 4, 3]]) == [[2, 3], [2, 4, 3]]
    assert mask_and_fill(guesser, tokenizer, []) == []


def test_a_model_that_does_not_fit_is_refused(guesser, tokenizer, tiny_teacher_folder, rows):
    with pytest.raises(DataError, match="ids up to 999"):
        mask_and_fill(guesser, tokenizer, [[2, 999, 3]])
    with pytest.raises(DataError, match="up to 70 tokens"):
        mask_and_fill(guesser, tokenizer, [[7] * 70])
    with pytest.raises(ModelError, match="BertModel does not guess words"):
        mask_and_fill(AutoModel.from_pretrained(tiny_teacher_folder), tokenizer, rows)
    other = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    other.add_tokens([f"<{k}>" for k in range(200)])
    with pytest.raises(ModelError, match="the model knows"):
        mask_and_fill(guesser, other, rows)
