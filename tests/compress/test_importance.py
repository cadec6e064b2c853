"""Each score is what its formula says, part by part; the model that is scored stays as it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny import made
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from course_utils.compress.importance import by_chance, magnitude, movement, taylor
from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill import trainer
from course_utils.distill.losses import hard_loss
from course_utils.distill.trainer import Recipe
from course_utils.errors import CourseError, DataError, ModelError
from course_utils.machine import describe
from course_utils.models.compact_bert import (
    CompactBertConfig,
    CompactBertForSequenceClassification,
    layers_of,
)

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "num_labels": 3,
    "initializer_range": 0.3,
}
UNEQUAL = SIZES | {"heads_per_layer": [3, 1], "neurons_per_layer": [5, 24]}
RANKS = {
    "bert.encoder.layer.0.attention.self.value": 3,
    "bert.encoder.layer.0.attention.output.dense": 2,
    "bert.encoder.layer.1.intermediate.dense": 4,
    "bert.encoder.layer.1.output.dense": 3,
}


@pytest.fixture
def model():
    return made(BertForSequenceClassification, BertConfig(**SIZES))


@pytest.fixture
def compact_model():
    config = CompactBertConfig(**UNEQUAL, ranks=RANKS)
    return made(CompactBertForSequenceClassification, config)


@pytest.fixture
def texts():
    """11 texts of 2 to 12 tokens with labels."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 13, (11,), generator=generator).tolist()
    ids = [torch.randint(5, 60, (n,), generator=generator).tolist() for n in lengths]
    return EncodedTexts(ids, labels=torch.randint(0, 3, (11,), generator=generator))


@pytest.fixture
def in_float32(monkeypatch):
    machine = replace(describe(), device="cpu", dtype="float32")
    monkeypatch.setattr(trainer, "describe", lambda: machine)


def close(one, other, **tolerance):
    for part in ("heads", "neurons"):
        ours, theirs = getattr(one, part), getattr(other, part)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, **tolerance)


def sizes(importance):
    return [[len(layer) for layer in part] for part in (importance.heads, importance.neurons)]


def rows_of(linear):
    return getattr(linear, "up", linear).weight


def columns_of(linear):
    return getattr(linear, "down", linear).weight


def weights_of_head(layer, h):
    """All the weights that go with a head, one tensor after the other."""
    attention, size = layer.attention.self, layer.attention.self.attention_head_size
    cut = slice(h * size, (h + 1) * size)
    inner = [rows_of(getattr(attention, name))[cut] for name in ("query", "key", "value")]
    return [*inner, columns_of(layer.attention.output.dense)[:, cut]]


def weights_of_neuron(layer, n):
    return [rows_of(layer.intermediate.dense)[n], columns_of(layer.output.dense)[:, n]]


# Magnitude and chance


@pytest.mark.parametrize("kind", ["model", "compact_model"])
def test_magnitude_is_the_norm_of_all_that_goes_with_a_part(kind, request):
    model = request.getfixturevalue(kind)
    scores = magnitude(model)
    for i, layer in enumerate(layers_of(model)):
        for h, score in enumerate(scores.heads[i]):
            expected = sum((w**2).sum() for w in weights_of_head(layer, h)) ** 0.5
            torch.testing.assert_close(score, expected.detach())
        for n, score in enumerate(scores.neurons[i]):
            expected = sum((w**2).sum() for w in weights_of_neuron(layer, n)) ** 0.5
            torch.testing.assert_close(score, expected.detach())
    expected = [[3, 1], [5, 24]] if kind == "compact_model" else [[4, 4], [24, 24]]
    assert sizes(scores) == expected


def test_chance_is_the_same_for_the_same_seed_alone(compact_model):
    one, again, other = (by_chance(compact_model, seed) for seed in (0, 0, 1))
    close(one, again, rtol=0, atol=0)
    assert not torch.equal(one.neurons[1], other.neurons[1])
    assert sizes(one) == [[3, 1], [5, 24]]
    assert all(0 <= score < 1 for layer in one.heads + one.neurons for score in layer)


# Taylor


def losses(model, texts):
    """The loss of each text alone, (N,), in float64."""
    each = []
    for i in range(len(texts)):
        batch = {"input_ids": torch.tensor([texts.input_ids[i]])}
        each.append(hard_loss(model(**batch).logits, texts.columns["labels"][i : i + 1])[0])
    return torch.stack(each)


@torch.no_grad()
def slope(model, texts, columns, step=1e-4):
    """The mean |dL/dxi| of the part behind these columns, which it reaches the model through."""
    own, ends = columns.clone(), []
    for xi in (1 + step, 1 - step):
        columns.copy_(own * xi)
        ends.append(losses(model, texts))
    columns.copy_(own)
    return ((ends[0] - ends[1]) / (2 * step)).abs().mean().float()


@pytest.mark.parametrize("kind", ["model", "compact_model"])
def test_taylor_is_the_slope_of_the_loss_when_a_part_grows(kind, texts, request):
    model = request.getfixturevalue(kind)
    scores, exact = taylor(model, texts), copy.deepcopy(model).double()
    for i, layer in enumerate(layers_of(exact)):
        size = layer.attention.self.attention_head_size
        for h, score in enumerate(scores.heads[i]):
            columns = columns_of(layer.attention.output.dense)[:, h * size : (h + 1) * size]
            torch.testing.assert_close(score, slope(exact, texts, columns), rtol=1e-3, atol=1e-5)
        for n in (0, 3, 4):
            columns = columns_of(layer.output.dense)[:, n]
            expected = slope(exact, texts, columns)
            torch.testing.assert_close(scores.neurons[i][n], expected, rtol=1e-3, atol=1e-5)


def test_taylor_does_not_depend_on_the_batches(model, texts):
    together = taylor(model, texts, batch_size=11)
    for batch_size in (1, 4):
        close(taylor(model, texts, batch_size=batch_size), together, rtol=1e-4, atol=1e-6)


def test_a_part_that_adds_nothing_scores_nothing(model, texts):
    layer = layers_of(model)[1]
    with torch.no_grad():
        layer.attention.output.dense.weight[:, 4:8] = 0  # head 1
        layer.output.dense.weight[:, 7] = 0
    scores = taylor(model, texts)
    assert scores.heads[1].argmin() == 1
    assert scores.heads[1][1] == 0
    assert scores.neurons[1][7] == 0
    assert (scores.neurons[1] == 0).sum() == 1


def test_texts_without_a_label_have_no_say(model, texts):
    labels = texts.columns["labels"].clone()
    labels[::2] = -100
    some = EncodedTexts(texts.input_ids[1::2], labels=labels[1::2])
    close(taylor(model, texts.with_columns(labels=labels)), taylor(model, some), rtol=1e-4, atol=0)


def test_texts_with_several_classes(model, texts):
    sets = torch.rand(11, 3, generator=torch.Generator().manual_seed(0)).round()
    scores = taylor(model, texts.with_columns(labels=sets))
    assert all(layer.min() > 0 for layer in scores.heads)
    sets[:] = -100
    with pytest.raises(DataError, match="No text has a label"):
        taylor(model, texts.with_columns(labels=sets))


@pytest.mark.parametrize("score", ["magnitude", "taylor", "movement"])
def test_the_model_is_left_as_it_was(score, model, texts, in_float32):
    model.train()
    model.bert.embeddings.requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    if score == "magnitude":
        magnitude(model)
    elif score == "taylor":
        taylor(model, texts)
        assert torch.equal(torch.get_rng_state(), random)
    else:
        movement(model, texts, Recipe(epochs=1, learning_rate=1e-2), progress=False)
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learned
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads == {"classifier.weight"}
    assert model.classifier.weight.grad.eq(1).all()
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in layers_of(model).modules())


def test_taylor_needs_no_weight_that_learns(model, texts):
    expected = taylor(model, texts)
    close(taylor(model.requires_grad_(False), texts), expected)


# Movement


def gradients(model, texts):
    """The gradient of the mean loss at these weights, clipped as the trainer clips it."""
    model = copy.deepcopy(model).eval()
    batch = PadBatch(0)([texts[i] for i in range(len(texts))])
    labels = batch.pop("labels")
    hard_loss(model(**batch).logits, labels).mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return model


def expected_movement(model, moved, weights_of, i, k):
    """- sum of w · dL/dw over a part, by name and by hand."""
    with_grad = copy.deepcopy(moved)
    for (_, p), (_, q) in zip(with_grad.named_parameters(), moved.named_parameters(), strict=True):
        p.data = q.grad
    pairs = zip(
        weights_of(layers_of(model)[i], k), weights_of(layers_of(with_grad)[i], k), strict=True
    )
    return -sum((w * g).sum() for w, g in pairs).detach()


@pytest.mark.parametrize("kind", ["model", "compact_model"])
def test_movement_of_weights_that_stay_is_minus_weight_times_gradient(
    kind, texts, request, in_float32
):
    model = request.getfixturevalue(kind)
    recipe = Recipe(epochs=2, learning_rate=0.0, batch_size=11)
    scores = movement(model, texts, recipe, progress=False)
    moved = gradients(model, texts)
    for i in range(2):
        for part, weights_of in (
            (scores.heads, weights_of_head),
            (scores.neurons, weights_of_neuron),
        ):
            for k in range(min(4, len(part[i]))):
                expected = 2 * expected_movement(model, moved, weights_of, i, k)  # two steps
                torch.testing.assert_close(part[i][k], expected, rtol=1e-3, atol=1e-5)


def test_movement_says_which_weights_grew(model, texts, in_float32):
    """The loss falls fastest along -gradient, so what scores high moves away from zero."""
    recipe = Recipe(epochs=30, learning_rate=1e-3, batch_size=11, weight_decay=0.0)
    scores = movement(model, texts, recipe, progress=False)
    student = copy.deepcopy(model)
    trainer.train(student, texts, recipe, progress=False)
    grew = torch.cat(magnitude(student).neurons) - torch.cat(magnitude(model).neurons)
    together = torch.stack([torch.cat(scores.neurons), grew])
    assert torch.corrcoef(together)[0, 1] > 0.5


def test_the_rankings_differ(model, texts, in_float32):
    recipe = Recipe(epochs=3, learning_rate=1e-3, batch_size=11)
    rankings = [
        magnitude(model),
        taylor(model, texts),
        movement(model, texts, recipe, progress=False),
        by_chance(model, 0),
    ]
    assert all(sizes(ranking) == [[4, 4], [24, 24]] for ranking in rankings)
    orders = {tuple(torch.cat(ranking.neurons).argsort().tolist()) for ranking in rankings}
    assert len(orders) == 4


# Words, not tracebacks


def test_no_label_at_all(model, texts):
    with pytest.raises(DataError, match="No text has a label"):
        taylor(model, texts.with_columns(labels=torch.full((11,), -100)))


@pytest.mark.parametrize(
    ("ids", "batch_size", "words"),
    [
        ([2, 60], 32, "id 60; the model has 60"),
        ([5] * 17, 32, "longest text has 17 tokens"),
        ([], 1, "1 of 12 texts have no token"),
        ([5], -1, "batch of -1 texts"),
    ],
)
def test_what_taylor_cannot_read(ids, batch_size, words, model, texts):
    labels = texts.columns["labels"]
    more = EncodedTexts([*texts.input_ids, ids], labels=torch.cat([labels, labels[:1]]))
    with pytest.raises(DataError, match=words):
        taylor(model, more, batch_size=batch_size)


def test_no_classes(texts):
    with pytest.raises(ModelError, match="BertForMaskedLM has no classes"):
        taylor(BertForMaskedLM(BertConfig(**SIZES)), texts)


@pytest.mark.parametrize("score", [magnitude, lambda m: by_chance(m, 0), lambda m: taylor(m, None)])
def test_another_family(score):
    with pytest.raises(CourseError, match="no layers as BERT's"):
        score(nn.Linear(2, 2))
