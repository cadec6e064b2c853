"""The puzzles are solvable by looking things up, and only so."""

import pytest
import torch

from course_utils.data.puzzles import KEYS, TOKENS, VALUES, recall_puzzles, spelled, where_stored
from course_utils.errors import DataError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("facts", [1, 4, 8])
def test_each_question_repeats_a_key_and_its_label_is_the_value_behind_it(facts):
    input_ids, labels = recall_puzzles(50, facts=facts, generator=seeded())
    assert input_ids.shape == labels.shape == (50, 3 * facts)
    for ids, answers in zip(input_ids, labels.tolist(), strict=True):
        tokens = spelled(ids)
        keys, values, asked = (
            tokens[: 2 * facts : 2],
            tokens[1 : 2 * facts : 2],
            tokens[2 * facts :],
        )
        assert set(keys) == set(asked) <= set(KEYS)
        assert len(set(keys)) == len(set(values)) == facts
        assert set(values) <= set(VALUES)
        stored = dict(zip(keys, values, strict=True))
        assert answers[: 2 * facts] == [-100] * 2 * facts
        assert [TOKENS[k] for k in answers[2 * facts :]] == [stored[key] for key in asked]


def test_the_seed_decides_and_everything_varies():
    first, again, other = (recall_puzzles(200, generator=seeded(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    ids, labels = first
    for column in range(12):  # no place gives anything away
        assert len(set(ids[:, column].tolist())) == 8
    assert len(set(labels[:, -1].tolist())) == 8


def test_where_stored_points_at_the_key_and_one_further_at_the_answer():
    input_ids, labels = recall_puzzles(50, generator=seeded())
    place = where_stored(input_ids)
    assert place.shape == (50, 4)
    assert torch.equal(input_ids.gather(1, place), input_ids[:, 8:])
    assert torch.equal(input_ids.gather(1, place + 1), labels[:, 8:])


@pytest.mark.parametrize("facts", [0, 9, -1])
def test_more_facts_than_keys_are_refused(facts):
    with pytest.raises(DataError, match=r"from 1 to 8 facts"):
        recall_puzzles(2, facts=facts, generator=seeded())
