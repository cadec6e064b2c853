"""Fake quantization is PyTorch's, forward and backward; what is trained so survives int8."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

from course_utils.compress.calibration_ranges import min_max, observe
from course_utils.compress.int8 import int8_model
from course_utils.compress.qat import (
    QATEmbedding,
    QATLinear,
    convert,
    fake_quant,
    prepare_qat,
    ranges_of,
    without_fake_quant,
)
from course_utils.compress.quantization import affine, from_range
from course_utils.data.encoding import EncodedTexts, encode
from course_utils.distill.trainer import Recipe, train
from course_utils.errors import ModelError
from course_utils.models.classifier import TorchClassifier


@pytest.fixture
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def model(tiny_teacher_folder):
    return AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def texts(tokenizer, some_texts):
    return encode(tokenizer, some_texts, [k % 3 for k in range(len(some_texts))], max_length=64)


@pytest.fixture
def ranges(model, texts):
    return {name: min_max(seen) for name, seen in observe(model, texts).items()}


def both(x, ours, theirs):
    """The values and the gradients of two functions of x."""
    torch.manual_seed(1)
    factor, results = torch.randn_like(x), []
    for function in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        (y * factor).sum().backward()
        results.append((y.detach(), leaf.grad))
    return results


# Fake quantization


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_values_and_gradients_are_pytorchs(bits, symmetric):
    torch.manual_seed(0)
    x = 2 * torch.randn(40, 30)
    q = from_range(-1.7, 2.3, bits=bits, symmetric=symmetric)
    ours, theirs = both(
        x,
        lambda x: fake_quant(x, q),
        lambda x: torch.fake_quantize_per_tensor_affine(x, q.scale, q.zero_point, q.low, q.high),
    )
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    assert 0.5 < (ours[1] != 0).float().mean() < 0.95  # something is clipped, and not all


def test_channels_are_pytorchs():
    torch.manual_seed(0)
    x = torch.randn(6, 30) * torch.arange(1, 7)[:, None]
    q = affine(x / 1.5, bits=4, symmetric=True, dim=0)  # so that a part is clipped
    ours, theirs = both(
        x,
        lambda x: fake_quant(x, q),
        lambda x: torch.fake_quantize_per_channel_affine(
            x, q.scale[:, 0], q.zero_point[:, 0], 0, q.low, q.high
        ),
    )
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    assert (ours[1] == 0).any()


def test_groups_pass_the_gradient_too():
    x = torch.randn(3, 8)
    (y, gradient), (_, straight) = both(
        x, lambda x: fake_quant(x, affine(x, bits=4, symmetric=True, group_size=4)), lambda x: x
    )
    assert not torch.equal(y, x)
    assert torch.equal(gradient, straight)


def test_clipped_numbers_get_no_gradient():
    x = torch.tensor([-3.0, -0.5, 0.5, 3.0], requires_grad=True)
    fake_quant(x, from_range(-1, 1, symmetric=True)).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_half_precision_stays_half_precision():
    x = torch.randn(4, 4, dtype=torch.bfloat16)
    assert fake_quant(x, affine(x, symmetric=True)).dtype == torch.bfloat16


# Models


def test_a_prepared_model_computes_what_its_integers_will(model, ranges, tokenizer, some_texts):
    prepared = prepare_qat(model, ranges)
    logits = {
        name: TorchClassifier.of(m, tokenizer, name=name).predict(some_texts)
        for name, m in {"now": prepared, "then": convert(prepared), "before": model}.items()
    }
    # Float sums differ in their last bits, and a number near a half may then round the other way.
    assert abs(logits["now"] - logits["then"]).max() < 0.05
    assert abs(logits["now"] - logits["before"]).max() > 1e-3


def test_each_layer_computes_what_its_integers_will(model, ranges, texts):
    """From the same input, so that no rounding of an earlier layer can differ: every number."""
    prepared = prepare_qat(model, ranges).eval()
    converted, went = convert(prepared), []
    for name, part in prepared.named_modules():
        if isinstance(part, (QATLinear, QATEmbedding)):
            part.register_forward_hook(lambda _, x, y, name=name: went.append((name, x[0], y)))
    with torch.no_grad():
        for ids in texts.input_ids:
            prepared(torch.tensor([ids]))
        for name, x, y in went:
            torch.testing.assert_close(converted.get_submodule(name)(x), y, atol=1e-4, rtol=1e-4)
    assert {name for name, *_ in went} >= {*ranges, "bert.embeddings.word_embeddings"}


def test_prepared_and_plain_again_is_the_model_itself(model, ranges):
    prepared = prepare_qat(model, ranges)
    plain = without_fake_quant(prepared)
    assert all(type(part) is not QATLinear for part in plain.modules())
    assert all(type(part) is not QATEmbedding for part in plain.modules())
    assert ranges_of(prepared) == ranges
    state = plain.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    ids = torch.tensor([[2, 7, 8, 3]])
    torch.testing.assert_close(plain.eval()(ids).logits, model.eval()(ids).logits)


def test_the_given_models_stay_as_they_were(model, ranges):
    before = copy.deepcopy(model.state_dict())
    prepared = prepare_qat(model.train(), ranges)
    convert(prepared)
    assert prepared.training
    assert model.training
    assert isinstance(prepared.classifier, QATLinear)
    assert type(model.classifier) is nn.Linear
    with torch.no_grad():
        prepared.classifier.weight.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_training_goes_through_and_every_weight_learns(model, texts, ranges):
    prepared = prepare_qat(model, ranges)
    log = train(prepared, texts, Recipe(epochs=8, learning_rate=2e-3), progress=False)
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    after, before = prepared.state_dict(), model.state_dict()
    linears = [name for name in before if name.endswith("dense.weight") or "query.weight" in name]
    assert all(not torch.equal(after[name], before[name]) for name in linears)


def test_the_gradient_leads_a_number_from_one_point_of_the_grid_to_the_next():
    """Rounding's own gradient, zero, would leave it where it was."""
    q = from_range(-1, 1, bits=4, symmetric=True)  # steps of 1/7
    start, target = torch.tensor([-0.9, 0.8, 0.0]), torch.tensor([0.6, -0.5, 0.95])
    x = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([x], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (fake_quant(x, q) - target).square().sum().backward()
        optimizer.step()
    assert ((fake_quant(x, q) - target).abs() <= 1 / 7 + 1e-6).all()
    assert ((fake_quant(start, q) - target).abs() > 0.9).all()


def test_what_is_tied_stays_tied():
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = BertForMaskedLM(config)
    linears = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    prepared = prepare_qat(model, dict.fromkeys(linears, (-8.0, 8.0)))
    decoder, table = prepared.cls.predictions.decoder, prepared.bert.embeddings.word_embeddings
    assert decoder.weight is table.weight
    assert isinstance(decoder, QATLinear)
    assert isinstance(table, QATEmbedding)
    assert convert(prepared)(input_ids=torch.tensor([[1, 2]])).logits.isfinite().all()


def test_a_layer_in_two_places_stays_one(model, tokenizer, some_texts):
    few = some_texts[:16]
    model.bert.encoder.layer[1].output.dense = model.bert.encoder.layer[0].output.dense
    seen = observe(model, encode(tokenizer, few, max_length=64))
    ranges = {name: min_max(each) for name, each in seen.items()}
    prepared = prepare_qat(model, ranges)
    assert ranges_of(prepared) == ranges
    now, then = (
        TorchClassifier.of(m, tokenizer, name="some").predict(few)
        for m in (prepared, convert(prepared))
    )
    assert abs(now - then).max() < 0.05


# Bad input


def test_prepared_or_quantized_twice_is_refused(model, ranges):
    prepared = prepare_qat(model, ranges)
    for quantize in (lambda m: prepare_qat(m, ranges), int8_model):
        for already in (prepared, convert(prepared)):
            with pytest.raises(ModelError, match="already"):
                quantize(already)


def test_a_layer_without_a_range_is_refused(model, ranges):
    with pytest.raises(ModelError, match="no range"):
        prepare_qat(model, {name: ranges[name] for name in list(ranges)[1:]})


def test_no_ranges_and_what_was_seen_are_no_ranges(model, texts):
    for ranges in (None, observe(model, EncodedTexts(texts.input_ids[:1]))):
        with pytest.raises(ModelError, match="26 linear layers have no range") as caught:
            prepare_qat(model, ranges)
        assert "min_max" in caught.value.do


@pytest.mark.parametrize("function", [convert, without_fake_quant, ranges_of])
def test_a_model_that_was_not_prepared_is_refused(model, function):
    with pytest.raises(ModelError, match="prepare_qat"):
        function(model)
