"""The defaults: how much a teacher and a student read, by the number of texts and their length."""

import pytest

from course_utils.data.encoding import EncodedTexts
from course_utils.distill.recipes import (
    MOST_NEW_TOKENS,
    n_tokens,
    n_varied,
    student_recipe,
    teacher_recipe,
)


def texts(n, length):
    return EncodedTexts([[101] * length] * n)


@pytest.mark.parametrize(
    ("n", "length", "epochs"),
    [(500, 15, 10), (4_000, 15, 6), (10_000, 15, 4), (67_000, 13, 2), (1_000_000, 13, 1)],
)
def test_the_more_texts_the_fewer_times_a_teacher_reads_each(n, length, epochs):
    assert teacher_recipe(texts(n, length)).epochs == epochs


def test_a_teacher_reads_long_texts_less_often():
    assert teacher_recipe(texts(4_000, 128)).epochs == 2
    assert teacher_recipe(texts(1_350, 119)).epochs == 6


@pytest.mark.parametrize("n", [30, 1_000, 4_000, 10_000, 67_000])
@pytest.mark.parametrize("length", [8, 25, 128])
def test_a_student_reads_about_as_many_tokens_whatever_the_length(n, length):
    labelled = texts(n, length)
    varied = texts(n_varied(labelled), int(1.5 * length))
    both = EncodedTexts(labelled.input_ids + varied.input_ids)
    read = n_tokens(both) * student_recipe(both).epochs
    least = min(500_000, 10 * n * length, 170 * n)
    assert least <= read <= max(1_600_000, 200 * n, 2 * n * length)


def test_a_new_text_is_made_of_each_at_most_twenty_times():
    assert n_varied(texts(10, 8)) == 200
    assert n_varied(texts(4_000, 15)) < 20 * 4_000
    assert n_varied(texts(20_000, 200)) == 0


def test_a_large_set_has_enough_texts_of_its_own():
    assert n_varied(texts(67_000, 12)) * 1.5 * 12 == pytest.approx(MOST_NEW_TOKENS, rel=0.01)
    assert n_varied(texts(300_000, 12)) == n_varied(texts(67_000, 12))


def test_seeds_are_passed_on():
    assert teacher_recipe(texts(9, 9), seed=3).seed == student_recipe(texts(9, 9), seed=3).seed == 3
