"""Varied texts: made of the given ones, a tenth hidden, the same for the same seed."""

from __future__ import annotations

import pytest

from course_utils.data.augment import varied

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
