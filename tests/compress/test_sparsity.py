"""As many zeros as asked for, where the smallest weights were; only a zip gains from them."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertModel,
)

from course_utils.compress.sparsity import (
    compressed_size_mb,
    share_of_zeros,
    two_of_four,
    zero_smallest,
)
from course_utils.errors import ModelError
from course_utils.measure.size import parameters, size_mb

SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
    "num_labels": 3,
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES)).eval()
    with torch.no_grad():  # layers of unlike size
        for k, matrix in enumerate(matrices(model).values()):
            matrix.mul_(1 + k / 4)
    return model


def matrices(model):
    return {name: p for name, p in model.named_parameters() if ".layer." in name and p.dim() == 2}


def flat(model):
    return torch.cat([m.detach().flatten().float() for m in matrices(model).values()])


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("per_matrix", [False, True])
def test_as_many_zeros_as_asked_for_and_the_smallest(share, per_matrix, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sparse = zero_smallest(model, share, per_matrix=per_matrix)
    after = sparse.state_dict()
    assert share_of_zeros(sparse) == pytest.approx(share, abs=1e-3)
    groups = [[name] for name in matrices(model)] if per_matrix else [list(matrices(model))]
    assert len(groups) in (1, 12)
    for names in groups:
        old = torch.cat([before[name].flatten() for name in names])
        new = torch.cat([after[name].flatten() for name in names])
        assert (new == 0).sum() == round(share * len(old))
        assert torch.equal(new[new != 0], old[new != 0])
        if share:
            assert old[new == 0].abs().max() <= old[new != 0].abs().min()
    for name in before.keys() - matrices(model).keys():
        assert torch.equal(before[name], after[name])
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize("per_matrix", [False, True])
def test_a_share_near_enough_to_one_is_all_of_them(per_matrix, model):
    assert share_of_zeros(zero_smallest(model, 1 - 1e-8, per_matrix=per_matrix)) == 1


def test_together_large_layers_lose_less_than_each_by_itself(model):
    first, *_, last = matrices(zero_smallest(model, 0.5)).values()
    assert (first == 0).float().mean() > 0.6 > 0.4 > (last == 0).float().mean()
    first, *_, last = matrices(zero_smallest(model, 0.5, per_matrix=True)).values()
    assert (first == 0).float().mean() == (last == 0).float().mean() == 0.5


def test_equal_weights_do_not_add_to_the_share(model):
    for matrix in matrices(model).values():
        matrix.data.fill_(0.5)
    assert share_of_zeros(zero_smallest(model, 0.25)) == 0.25
    assert share_of_zeros(zero_smallest(model.to(torch.bfloat16), 0.25)) == 0.25


def test_more_and_more_zeros(model):
    once = zero_smallest(zero_smallest(model, 0.3), 0.6)
    assert torch.equal(flat(once), flat(zero_smallest(model, 0.6)))
    assert share_of_zeros(model) == 0


def test_two_of_every_four_are_zero_and_the_larger_stay(model):
    sparse = two_of_four(model)
    assert share_of_zeros(sparse) == 0.5
    old, new = flat(model).view(-1, 4).tolist(), flat(sparse).view(-1, 4).tolist()
    for was, now in zip(old[:2000], new[:2000], strict=True):
        largest = sorted(range(4), key=lambda k: abs(was[k]))[2:]
        assert now == [was[k] if k in largest else 0 for k in range(4)]
    assert share_of_zeros(model) == 0


def test_zeros_take_as_many_bytes_and_only_a_zip_is_smaller(model, tmp_path):
    sizes = []
    for share in (0, 0.5, 0.9):
        sparse = zero_smallest(model, share)
        sparse.save_pretrained(tmp_path)
        assert parameters(sparse) == parameters(model)
        sizes.append((size_mb(tmp_path), compressed_size_mb(sparse)))
    on_disk, zipped = zip(*sizes, strict=True)
    assert len(set(on_disk)) == 1
    assert zipped[0] > 1.2 * zipped[1] > 1.2 * zipped[2]
    assert 0.85 * on_disk[0] < zipped[0] < on_disk[0]


def test_a_shared_table_is_counted_once():
    tied = BertForMaskedLM(BertConfig(**SIZES))
    loose = BertForMaskedLM(BertConfig(**SIZES, tie_word_embeddings=False))
    table_mb = 200 * 32 * 4 / 1e6
    assert 0.8 * table_mb < compressed_size_mb(loose) - compressed_size_mb(tied) < 1.1 * table_mb


def test_half_precision_takes_about_half(model):
    whole = compressed_size_mb(model)
    assert 0.4 * whole < compressed_size_mb(model.to(torch.bfloat16)) < 0.6 * whole


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, math.nan, None, "0.5", [0.5], False])
def test_shares_that_cannot_be_zero(share, model):
    with pytest.raises(ModelError, match="cannot be zero"):
        zero_smallest(model, share)


def test_rows_that_do_not_fall_into_fours():
    model = BertForSequenceClassification(BertConfig(**SIZES | {"intermediate_size": 30}))
    with pytest.raises(ModelError, match="Rows of 30 weights"):
        two_of_four(model)


@pytest.mark.parametrize("zeros", [two_of_four, share_of_zeros, lambda m: zero_smallest(m, 0.5)])
def test_another_family(zeros):
    sizes = {"vocab_size": 50, "dim": 8, "n_heads": 2, "n_layers": 1, "hidden_dim": 8}
    with pytest.raises(ModelError, match="DistilBertModel has no layers"):
        zeros(DistilBertModel(DistilBertConfig(**sizes)))
