"""Ranges: seen without padding, cut by share or by entropy; nothing is left in the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from course_utils.compress.calibration_ranges import (
    BINS,
    Observed,
    entropy,
    min_max,
    observe,
    outliers,
    percentile,
    summarise,
)
from course_utils.compress.quantization import error, from_range
from course_utils.data.encoding import EncodedTexts, encode
from course_utils.errors import DataError


@pytest.fixture
def model(tiny_teacher_folder):
    return AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder).train()


@pytest.fixture
def texts(tiny_teacher_folder, some_texts):
    return encode(AutoTokenizer.from_pretrained(tiny_teacher_folder), some_texts, max_length=64)


def of(*values):
    """What is seen when these tensors (N, K) come one after the other."""
    return summarise(lambda: [("x", value) for value in values])["x"]


def one_by_one(model, texts):
    """What goes into each linear layer when every text comes alone: nothing can be padded."""
    seen = {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].flatten(0, -2))
            )
    with torch.no_grad():
        for ids in texts.input_ids:
            model.eval()(input_ids=torch.tensor([ids]))
    return {name: torch.cat(values) for name, values in seen.items()}


# What is seen


def test_every_linear_layer_is_seen_and_no_padding(model, texts):
    ours = observe(model, texts, batch_size=16)
    theirs = one_by_one(model, texts)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 4 * 6 + 2
    for name, seen in ours.items():
        values = theirs[name]
        assert seen.counts.sum() == values.numel()
        assert seen.low == pytest.approx(min(values.min().item(), 0), abs=1e-4)
        assert seen.high == pytest.approx(values.max().item(), abs=1e-4)
        torch.testing.assert_close(seen.channel_max, values.abs().amax(0), atol=1e-4, rtol=1e-4)


def test_padding_in_the_texts_themselves_is_not_seen_either(model, texts):
    ids = [row for row in texts.input_ids if len(row) < 60]
    padded = observe(model, EncodedTexts([[*row, 0, 0, 0] for row in ids] + [[0, 0]]))
    plain = observe(model, EncodedTexts(ids))
    name = "bert.encoder.layer.3.output.dense"
    assert padded[name].counts.sum() == plain[name].counts.sum()
    torch.testing.assert_close(
        padded[name].channel_max, plain[name].channel_max, atol=1e-3, rtol=1e-3
    )


def test_texts_as_long_as_the_model_is_wide(model):
    """The pooler's input, (B, H), then looks like a batch of tokens."""
    width = model.config.hidden_size
    rows = [[2] + [5 + k % 50] * (width - 2) + [3] for k in range(width)]
    seen = observe(model, EncodedTexts(rows))
    assert seen["bert.pooler.dense"].channel_max.shape == (width,)
    assert seen["bert.pooler.dense"].counts.sum() == width * width


def test_the_model_is_as_it_was(model, texts):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    observe(model, texts)
    assert model.training
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert all(torch.equal(tensor, before[k]) for k, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_one_text_and_one_batch_are_enough_to_go_on(model, texts):
    seen = observe(model, EncodedTexts(texts.input_ids[:1]))
    assert all(each.low < each.high for each in seen.values())


@pytest.mark.parametrize("ids", [[], [[]], [[0, 0, 0], [0]]])
def test_no_token_to_be_seen_is_refused(model, ids):
    with pytest.raises(DataError):
        observe(model, EncodedTexts(ids))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([[5] * 65], "65 tokens"),
        ([[2, 120, 3]], "id 120; the model has 120"),
        ([[2, 5, 3], []], "1 of 2 texts have no token"),
    ],
)
def test_texts_that_the_model_cannot_read_are_refused(model, ids, words):
    with pytest.raises(DataError, match=words):
        observe(model, EncodedTexts(ids))


def test_batches_of_no_text_are_refused(model, texts):
    with pytest.raises(DataError, match="batch of -1 texts"):
        observe(model, texts, batch_size=-1)


def test_what_is_no_number_is_refused_and_no_hook_stays(model, texts):
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        observe(model, texts)
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_the_histogram_is_numpys_over_all_batches():
    torch.manual_seed(0)
    a, b = torch.randn(50, 3), 3 * torch.randn(70, 3)
    seen = of(a, b)
    both = torch.cat([a, b])
    counts, _ = np.histogram(both.numpy(), BINS, (seen.low, seen.high))
    assert np.abs(np.cumsum(counts) - seen.counts.cumsum(0).numpy()).max() <= 1  # at the edges
    assert min_max(seen) == (both.min().item(), both.max().item())


def test_zeros_alone_have_a_range():
    seen = of(torch.zeros(4, 2))
    for cut in (min_max, percentile, entropy):
        assert cut(seen) == (0, 0)


# Where to cut


@pytest.mark.parametrize("share", [0.9, 0.99, 0.999])
def test_the_percentile_keeps_its_share_on_both_sides(share):
    torch.manual_seed(0)
    values = torch.randn(100_000, 1).exp()  # lopsided
    low, high = percentile(of(values - 1), share)
    theirs = np.quantile(values.numpy() - 1, [(1 - share) / 2, (1 + share) / 2])
    width = (values.max() - values.min()).item() / BINS
    np.testing.assert_allclose([low, high], theirs, atol=2 * width)


def test_all_is_the_whole_range():
    seen = of(torch.linspace(-1, 3, 500)[:, None])
    assert percentile(seen, 1.0) == pytest.approx(min_max(seen))


@pytest.mark.parametrize("share", [0, 1.01, -1, float("nan"), None, "1", True])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(DataError, match="cannot be kept"):
        percentile(of(torch.ones(2, 2)), share)


def test_entropy_cuts_an_outlier_and_keeps_an_even_range():
    torch.manual_seed(0)
    values = torch.randn(100_000, 1)
    values[0] = 100.0
    low, high = entropy(of(values))
    assert values.min() <= low < -2.5
    assert 2.5 < high < 12
    even = of(torch.linspace(-2, 2, 100_000)[:, None])
    assert entropy(even) == pytest.approx((-2, 2), rel=0.02)


@pytest.mark.parametrize("bits", [1, 9, 16])
def test_entropy_of_other_bits_is_refused(bits):
    with pytest.raises(DataError, match="2 to 8"):
        entropy(of(torch.ones(2, 2)), bits)


def test_a_cut_range_rounds_less_where_there_are_outliers():
    torch.manual_seed(0)
    values = torch.randn(20_000, 1)
    values[0] = 60.0
    seen = of(values)
    errors = {
        cut.__name__: error(values, from_range(*cut(seen), symmetric=False))
        for cut in (min_max, percentile, entropy)
    }
    assert errors["min_max"].clipping < 1e-3
    assert errors["percentile"].rounding < errors["min_max"].rounding / 10
    assert errors["entropy"].rounding < errors["min_max"].rounding / 10


def test_one_sided_numbers_keep_their_near_end():
    torch.manual_seed(0)
    values = nn.functional.gelu(3 * torch.randn(50_000, 1))
    values[0] = 200.0
    low, high = entropy(of(values))
    assert low == pytest.approx(values.min().item())
    assert 5 < high < 60


# Outliers


def test_outliers_name_the_channel_and_come_worst_first():
    def seen(*peaks):
        return Observed(0.0, max(peaks), torch.ones(BINS).long(), torch.tensor(peaks))

    calm, wild = seen(1.0, 2.0, 3.0), seen(1.0, 1.0, 1.0, 40.0, 1.0)
    first, second = outliers({"calm": calm, "wild": wild})
    assert (first.name, first.channel, first.ratio) == ("wild", 3, 40)
    assert (second.name, second.channel, second.ratio) == ("calm", 2, 1.5)
    assert outliers({"dead": seen(0.0, 0.0, 1.0)})[0].ratio == float("inf")
