"""Ranks for a size fill it and no more; by energy, all layers together lose the least."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from course_utils.compress.lowrank import factorise
from course_utils.compress.moments import linears
from course_utils.compress.ranks import ranks_for, spectra
from course_utils.compress.svd import break_even_rank, saves
from course_utils.errors import ModelError

QUERY = "bert.encoder.layer.0.attention.self.query"


def encoder_size(model) -> int:
    return sum(p.numel() for p in model.base_model.encoder.parameters())


@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
@pytest.mark.parametrize("by", ["even", "energy", "energy of outputs"])
def test_ranks_for_a_size_fill_it_and_no_more(model, texts, share, by):
    found = None
    if by != "even":
        found = spectra(model, texts=texts if "outputs" in by else None)
    ranks = ranks_for(model, share, spectra=found)
    size = encoder_size(factorise(model, ranks))
    room = share * encoder_size(model)
    one_rank_each = sum(sum(layer.weight.shape) for layer in linears(model).values())
    assert room - one_rank_each < size <= room
    shapes = {name: layer.weight.shape for name, layer in linears(model).items()}
    assert all(saves(*shapes[name], rank) > 0 for name, rank in ranks.items())


def test_without_spectra_every_layer_keeps_the_same_share(model):
    ranks = ranks_for(model, 0.5)
    assert set(ranks) == set(linears(model))
    kept = {n: r / break_even_rank(*linears(model)[n].weight.shape) for n, r in ranks.items()}
    assert max(kept.values()) - min(kept.values()) < 1 / 16
    assert min(kept.values()) > 0.4


def square() -> BertForSequenceClassification:
    """A model whose six weights all are 20 x 20, so that a rank costs the same in each."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=9,
            hidden_size=20,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=20,
        )
    )


@pytest.mark.parametrize("n_ranks", [9, 12, 15])
def test_by_energy_all_layers_together_lose_the_least(n_ranks):
    model = square()
    found = {
        name: torch.exp(-decay * torch.arange(20.0)) * size
        for name, decay, size in zip(
            linears(model), (0.4, 0.9, 0.3, 1.5, 0.6, 0.45), (1, 5, 0.1, 2, 1, 7), strict=True
        )
    }
    fixed = encoder_size(model) - 6 * 20 * 20
    ranks = ranks_for(model, (fixed + 40 * n_ranks + 20) / encoder_size(model), spectra=found)
    lost = {  # by a rank of 0 to 9, as a share
        name: [float(s[k:].square().sum() / s.square().sum()) for k in range(10)]
        for name, s in found.items()
    }
    least = min(
        sum(lost[name][k] for name, k in zip(found, choice, strict=True))
        for choice in product(range(1, 8), repeat=6)
        if sum(choice) == n_ranks
    )
    assert sum(ranks.values()) == n_ranks
    assert sum(lost[name][k] for name, k in ranks.items()) == pytest.approx(least)


def test_a_layer_that_needs_nearly_all_its_ranks_stays_whole():
    model = square()
    found = {name: torch.tensor([1.0] + [0.0] * 19) for name in linears(model)}
    found[QUERY] = torch.ones(20)
    fixed = encoder_size(model) - 6 * 20 * 20
    ranks = ranks_for(model, (fixed + 400 + 5 * 40) / encoder_size(model), spectra=found)
    assert ranks == {name: 1 for name in found if name != QUERY}


def test_a_size_that_cannot_be_is_refused(model):
    for share in (0, 1.5, -1):
        with pytest.raises(ModelError, match="above 0 and at most 1"):
            ranks_for(model, share)
    with pytest.raises(ModelError, match="No ranks leave the encoder 2"):
        ranks_for(model, 0.02)
    with pytest.raises(ModelError, match=f"no spectrum of {QUERY}"):
        ranks_for(model, 0.5, spectra={n: torch.ones(32) for n in linears(model) if n != QUERY})
    whole = {name: min(layer.weight.shape) for name, layer in linears(model).items()}
    with pytest.raises(ModelError, match="not factorised yet"):
        ranks_for(factorise(model, whole), 0.5)


def test_a_model_that_cannot_be_made_compact_is_refused():
    config = DistilBertConfig(vocab_size=120, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    with pytest.raises(ModelError, match="DistilBert"):
        ranks_for(DistilBertForSequenceClassification(config), 0.5)
