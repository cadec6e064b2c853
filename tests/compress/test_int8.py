"""An int8 model in plain PyTorch: what ONNX Runtime computes, a quarter of the bytes."""

from __future__ import annotations

import copy

import onnx
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
from course_utils.compress.int8 import Int8Embedding, Int8Linear, int8_model
from course_utils.data.encoding import encode
from course_utils.errors import ModelError
from course_utils.models.classifier import TorchClassifier
from course_utils.ship.runtime import OnnxClassifier


@pytest.fixture
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def model(tiny_teacher_folder):
    return AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def ranges(model, tokenizer, some_texts):
    seen = observe(model, encode(tokenizer, some_texts, max_length=64))
    return {name: min_max(each) for name, each in seen.items()}


def predict(model, tokenizer, texts, batch_size=32):
    return torch.from_numpy(
        TorchClassifier.of(model, tokenizer, name="some").predict(texts, batch_size)
    )


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]


def test_a_layer_is_the_product_of_the_rounded_numbers():
    torch.manual_seed(0)
    linear, x = nn.Linear(16, 6), torch.randn(2, 5, 16)
    layer = Int8Linear(linear)
    scale = linear.weight.abs().amax(1, keepdim=True) / 127
    weight = torch.round(linear.weight / scale) * scale
    step = (x.max() - x.min()) / 255
    zero = torch.round(-x.min() / step)
    rounded = ((torch.round(x / step) + zero).clamp(0, 255) - zero) * step
    expected = nn.functional.linear(rounded, weight, linear.bias)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert (layer(x) - linear(x)).abs().max() > 1e-4


def test_a_static_layer_clips_what_is_beyond_its_range():
    layer = Int8Linear(nn.Linear(3, 2), (-1.0, 1.0))
    far, end = torch.tensor([[5.0, -7.0, 0.5]]), torch.tensor([[1.0, -1.0, 0.5]])
    torch.testing.assert_close(layer(far), layer(end), atol=0.05, rtol=0)
    assert not torch.allclose(Int8Linear(nn.Linear(3, 2))(far), layer(far))


def test_a_table_has_a_scale_for_each_row():
    torch.manual_seed(0)
    table = nn.Embedding(7, 4)
    with torch.no_grad():
        table.weight[3] *= 100
        table.weight[5] = 0
    ids = torch.tensor([[0, 3, 5], [6, 6, 1]])
    rows = Int8Embedding(table)(ids)
    assert rows.shape == (2, 3, 4)
    off = (rows - table(ids)).abs().amax(-1)
    assert (off <= table(ids).abs().amax(-1) / 127 * 0.501).all()
    assert rows[0, 2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("static", [False, True])
def test_the_model_answers_nearly_the_same_with_integers_only(
    model, tokenizer, some_texts, ranges, static
):
    small = int8_model(model, ranges if static else None)
    before, after = (predict(m, tokenizer, some_texts) for m in (model, small))
    assert correlation(before, after) > 0.99
    assert (before - after).abs().max() > 1e-4
    assert not any(isinstance(part, nn.Linear | nn.Embedding) for part in small.modules())
    kept = [p for p in small.parameters() if p.dim() > 1]
    assert kept == []  # LayerNorm's vectors alone are float
    matrices = [b for b in small.buffers() if b.dim() > 1 and b.shape[1] > 1 and not b.is_complex()]
    assert {b.dtype for b in matrices if b.shape[0] > 1} == {torch.int8}


def test_it_computes_what_onnx_runtime_does(tiny_onnx, model, tokenizer, some_texts):
    """The same scheme, written twice; but their tables have one scale for all rows."""
    graph = onnx.load(tiny_onnx["int8"][0] / "model.onnx").graph
    assert any(node.op_type == "DynamicQuantizeLinear" for node in graph.node)
    theirs = torch.from_numpy(OnnxClassifier(tiny_onnx["int8"][0]).predict(some_texts, 1))
    ours = predict(int8_model(model), tokenizer, some_texts, 1)
    assert correlation(ours, theirs) > 0.99


@pytest.mark.parametrize("training", [True, False])
def test_the_old_model_is_as_it_was(model, training):
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    int8_model(model)
    assert model.training is training
    assert isinstance(model.classifier, nn.Linear)
    assert all(torch.equal(tensor, before[k]) for k, tensor in model.state_dict().items())


def test_a_tied_decoder_gets_the_integers_of_its_table():
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    small = int8_model(BertForMaskedLM(config))
    decoder, table = small.cls.predictions.decoder, small.bert.embeddings.word_embeddings
    assert torch.equal(decoder.weight, table.weight)
    logits = small(input_ids=torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, 40)
    assert logits.isfinite().all()


@pytest.mark.parametrize("static", [False, True])
def test_a_layer_in_two_places_stays_one(model, tokenizer, some_texts, static):
    first, second = model.bert.encoder.layer[:2]
    second.output.dense = first.output.dense
    second.attention.self.key = second.attention.self.query  # two names within one module
    few = some_texts[:16]
    seen = observe(model, encode(tokenizer, few, max_length=64))
    ranges = {name: min_max(each) for name, each in seen.items()}
    small = int8_model(model, ranges if static else None)
    first, second = small.bert.encoder.layer[:2]
    assert isinstance(first.output.dense, Int8Linear)
    assert second.output.dense is first.output.dense
    assert second.attention.self.key is second.attention.self.query
    assert not any(isinstance(part, nn.Linear | nn.Embedding) for part in small.modules())
    before, after = (predict(m, tokenizer, few) for m in (model, small))
    assert correlation(before, after) > 0.99


def test_quantized_twice_is_refused(model):
    with pytest.raises(ModelError, match="already"):
        int8_model(int8_model(model))


def test_ranges_of_another_model_are_refused(model, ranges):
    del ranges["bert.pooler.dense"]
    with pytest.raises(ModelError, match="pooler"):
        int8_model(model, ranges)
    with pytest.raises(ModelError, match="26 linear"):
        int8_model(model, {})


@pytest.mark.parametrize(
    "bad", [None, (0.0, float("nan")), (0.0, float("inf")), (1.0, -1.0), (1.0,), "01", 3.0]
)
def test_a_range_that_is_none_is_refused(model, bad):
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    ranges = dict.fromkeys(names, (-8.0, 8.0)) | {"bert.pooler.dense": bad}
    with pytest.raises(ModelError, match=r"1 linear layers have no range.*pooler"):
        int8_model(model, ranges)
