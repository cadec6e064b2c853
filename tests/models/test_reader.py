"""The reader learns the puzzle with two layers, and cannot with one or without positions."""

import pytest
import torch
import torch.nn.functional as F

from course_utils.data.puzzles import TOKENS, recall_puzzles, where_stored
from course_utils.errors import DataError
from course_utils.models.attention import causal_mask
from course_utils.models.reader import Reader

TEST = recall_puzzles(250, generator=torch.Generator().manual_seed(99))


def reader(**options) -> Reader:
    torch.manual_seed(0)
    return Reader(len(TOKENS), 12, **options)


def trained(*, mask, steps=160, **options) -> tuple[Reader, float]:
    model = reader(**options)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        input_ids, labels = recall_puzzles(64, generator=generator)
        loss = F.cross_entropy(model(input_ids, mask=mask)[0].flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    input_ids, labels = TEST
    with torch.no_grad():
        logits, _ = model(input_ids, mask=mask)
    return model, (logits.argmax(-1) == labels)[labels >= 0].float().mean().item()


def test_two_layers_learn_it_and_their_attention_shows_how():
    model, accuracy = trained(mask=causal_mask(12))
    assert accuracy > 0.95
    input_ids, _ = TEST
    with torch.no_grad():
        _, (first, last) = model(input_ids, mask=causal_mask(12))
    values = torch.arange(1, 8, 2)
    assert first[:, :, values, values - 1].mean((0, 2)).max() > 0.8  # a value looks at its key
    answer = (where_stored(input_ids) + 1)[:, None, :, None].expand(-1, 2, -1, -1)
    assert last[:, :, 8:].gather(3, answer).mean((0, 2, 3)).max() > 0.8  # a question at the answer


@pytest.mark.parametrize(
    ("options", "mask"),
    [({"n_layers": 1}, causal_mask(12)), ({"positions": False}, None)],
    ids=["one layer", "no positions"],
)
def test_what_cannot_solve_it_guesses_among_the_four_values(options, mask):
    _, accuracy = trained(mask=mask, **options)
    assert 0.15 < accuracy < 0.35


def test_without_positions_shuffled_tokens_get_the_same_logits_in_their_new_places():
    input_ids, _ = TEST
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    for positions, equal in ((False, True), (True, False)):
        model = reader(positions=positions)
        straight, shuffled = model(input_ids)[0], model(input_ids[:, order])[0]
        assert torch.allclose(straight[:, order], shuffled, atol=1e-5) is equal


def test_shapes_and_the_mask_reach_every_layer():
    logits, weights = reader(n_layers=3, n_heads=4)(TEST[0][:5], mask=causal_mask(12))
    assert logits.shape == (5, 12, len(TOKENS))
    assert [w.shape for w in weights] == [(5, 4, 12, 12)] * 3
    assert all(w.triu(1).eq(0).all() for w in weights)


@pytest.mark.parametrize(
    ("input_ids", "words"),
    [
        (torch.zeros(2, 5, dtype=torch.int64), "Axis 1 of input_ids is 5 long, expected 12"),
        (torch.full((2, 12), 16), "value 16, expected 0 to 15"),
        (torch.zeros(2, 12), "whole numbers"),
    ],
)
def test_ids_that_do_not_fit_are_refused_in_words(input_ids, words):
    with pytest.raises(DataError, match=words):
        reader()(input_ids)
