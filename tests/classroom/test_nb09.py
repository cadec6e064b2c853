"""Exercises of notebook 09: right answers written another way are right, real slips are named."""

import numpy as np
import pytest
import torch
from tiny import TEXTS, write_tokenizer
from transformers import AutoTokenizer

from course_utils.classroom.checks import exercises
from course_utils.compress.svd import break_even_rank, energy_rank, low_rank, saves
from course_utils.compress.vocabulary import tokens_to_keep

MINE = {name: exercise for name, exercise in exercises().items() if exercise.notebook == "09"}


# Right answers, written in other ways


def best_with_the_library(weight, rank):
    down, up = low_rank(weight, rank)
    return up @ down


def best_term_by_term(weight, rank):
    u, s, vh = np.linalg.svd(weight.numpy())
    return torch.tensor(sum(s[k] * np.outer(u[:, k], vh[k]) for k in range(rank)))


def best_by_projection(weight, rank):
    directions = torch.linalg.eigh(weight.T @ weight).eigenvectors[:, -rank:]
    return weight @ directions @ directions.T


def rank_by_trying(m, n, share):
    return max(r for r in range(min(m, n) + 1) if r * (m + n) <= share * m * n)


def energy_in_a_loop(singular_values, share):
    total, held = float((singular_values**2).sum()), 0.0
    for k, value in enumerate(singular_values.tolist()):
        held += value**2
        if held >= share * total:
            return k + 1
    return len(singular_values)


def moment_with_einsum(hidden, attention_mask):
    mask = attention_mask.to(hidden)
    return torch.einsum("bsi,bsj,bs->ij", hidden, hidden, mask) / mask.sum()


def moment_token_by_token(hidden, attention_mask):
    products = [
        torch.outer(x, x)
        for text, keep in zip(hidden, attention_mask, strict=True)
        for x, real in zip(text, keep, strict=True)
        if real
    ]
    return torch.stack(products).mean(0)


def inputs_with_the_inverse(weight, moment, rank):
    root = torch.linalg.cholesky(moment)
    u, s, vh = torch.linalg.svd(weight @ root, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank] @ torch.linalg.inv(root)


def inputs_with_the_symmetric_root(weight, moment, rank):
    values, vectors = torch.linalg.eigh(moment)
    root = vectors @ values.sqrt().diag() @ vectors.T
    u = torch.linalg.svd(weight @ root).U[:, :rank]
    return u @ u.T @ weight


def inputs_with_the_library(weight, moment, rank):
    down, up = low_rank(weight, rank, moment)
    return up @ down


def keep_in_a_loop(vocabulary, special, texts):
    kept = []
    for token, i in sorted(vocabulary.items(), key=lambda pair: pair[1]):
        bare = token[2:] if token.startswith("##") else token
        if i in special or len(bare) == 1 or any(i in ids for ids in texts):
            kept.append(i)
    return kept


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("best_of_rank", best_with_the_library),
        ("best_of_rank", best_term_by_term),
        ("best_of_rank", best_by_projection),
        ("largest_rank", rank_by_trying),
        ("largest_rank", lambda m, n, share: int(share * break_even_rank(m, n))),
        ("rank_for_energy", energy_in_a_loop),
        ("rank_for_energy", energy_rank),
        ("second_moment", moment_with_einsum),
        ("second_moment", moment_token_by_token),
        ("best_for_inputs", inputs_with_the_inverse),
        ("best_for_inputs", inputs_with_the_symmetric_root),
        ("best_for_inputs", inputs_with_the_library),
        ("keep_tokens", keep_in_a_loop),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = MINE[name].judge(answer)
    assert verdict.state == "right", verdict.why


# Slips as learners write them


def best_without_s(weight, rank):
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] @ vh[:rank]


def best_with_v_for_its_transpose(weight, rank):
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] @ s[:rank].diag() @ v[:, :rank].T


def energy_with_searchsorted(singular_values, share):
    held = singular_values.square().cumsum(0)
    return int(torch.searchsorted(held, share * held[-1]))


def moment_of_zeroed_padding(hidden, attention_mask):
    x = (hidden * attention_mask[..., None]).flatten(0, 1)
    return x.T @ x / len(x)


def moment_with_cov(hidden, attention_mask):
    return torch.cov(hidden[attention_mask.bool()].T, correction=0)


def inputs_as_columns(weight, moment, rank):
    root = torch.linalg.cholesky(moment, upper=True)
    u = torch.linalg.svd(weight @ root).U[:, :rank]
    return u @ u.T @ weight


def keep_what_is_seen(vocabulary, special, texts):
    return sorted(set().union(*texts))


def keep_one_letter(vocabulary, special, texts):
    letters = {i for token, i in vocabulary.items() if len(token) == 1}
    return sorted(letters.union(special, *texts))


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        ("best_of_rank", best_without_s, "no_singular_values"),
        ("best_of_rank", best_with_v_for_its_transpose, "columns_of_vh"),
        ("largest_rank", lambda m, n, share: int(share * min(m, n)), "share_of_the_full_rank"),
        ("rank_for_energy", energy_with_searchsorted, "one_too_few"),
        ("second_moment", moment_of_zeroed_padding, "divided_by_all"),
        ("second_moment", moment_with_cov, "covariance"),
        ("best_for_inputs", lambda w, m, r: best_with_the_library(w, r), "weight_alone"),
        ("best_for_inputs", inputs_as_columns, "root_transposed"),
        ("keep_tokens", keep_what_is_seen, "only_what_is_seen"),
        ("keep_tokens", keep_one_letter, "only_first_characters"),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = MINE[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake), verdict.why


def test_a_slip_nobody_foresaw_shows_a_case():
    verdict = MINE["largest_rank"].judge(lambda m, n, share: (m + n) // 2)
    assert (verdict.state, verdict.mistake) == ("wrong", None)
    assert "expected" in verdict.why


def test_an_answer_that_is_a_set_is_told_that_a_list_is_wanted():
    keep = MINE["keep_tokens"].reference
    verdict = MINE["keep_tokens"].judge(lambda *arguments: set(keep(*arguments)))
    assert "a list" in verdict.why


# What the exercises say is what the library does


def test_the_largest_rank_saves_what_it_should():
    for m, n, share in MINE["largest_rank"].cases():
        rank = MINE["largest_rank"].reference(m, n, share)
        assert m * n - saves(m, n, rank) <= share * m * n < m * n - saves(m, n, rank + 1)


def test_the_best_for_inputs_has_less_error_on_them_than_every_mistake():
    exercise = MINE["best_for_inputs"]

    def error(answer, weight, moment, rank):
        rest = weight - answer(weight, moment, rank)
        return float(((rest @ moment) * rest).sum())

    for case in exercise.cases():
        least = error(exercise.reference, *case)
        for name, mistake in exercise.mistakes.items():
            assert error(mistake.function, *case) > least - 1e-12, name


def test_tokens_to_keep_are_those_of_the_library(tmp_path):
    write_tokenizer(tmp_path, 120)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = tokenizer(TEXTS[:3])["input_ids"]
    special = [*tokenizer.all_special_ids]
    expected = tokens_to_keep(tokenizer, texts, at_least=0)
    assert MINE["keep_tokens"].reference(tokenizer.get_vocab(), special, texts) == expected
