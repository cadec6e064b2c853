"""What is removed is what a mask hides; what is left is an ordinary model, saved and loaded."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import TEXTS, made
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from course_utils.compress.importance import Importance, by_chance
from course_utils.compress.pruning import (
    Kept,
    encoder_parameters,
    gradual,
    keep_most_important,
    masked,
    remove,
    remove_hidden,
)
from course_utils.compress.vocabulary import tokens_to_keep, trim_vocabulary
from course_utils.errors import ModelError
from course_utils.measure.size import parameters
from course_utils.models.classifier import TorchClassifier
from course_utils.models.compact_bert import (
    CompactBertConfig,
    CompactBertForMaskedLM,
    CompactBertForSequenceClassification,
    CompactBertModel,
    layers_of,
)

SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "num_labels": 3,
    "initializer_range": 0.3,
}
RANKS = {
    "bert.encoder.layer.0.attention.self.query": 3,
    "bert.encoder.layer.0.attention.output.dense": 4,
    "bert.encoder.layer.1.intermediate.dense": 2,
    "bert.encoder.layer.2.output.dense": 2,
    "bert.pooler.dense": 5,
}
INPUTS = {
    "input_ids": torch.tensor([[2, 17, 33, 3, 0, 0], [2, 58, 44, 21, 9, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]),
}
KINDS = {
    BertModel: CompactBertModel,
    BertForSequenceClassification: CompactBertForSequenceClassification,
    BertForMaskedLM: CompactBertForMaskedLM,
}
SOME = Kept(
    heads=((1,), (0, 1, 2, 3), (0, 3)),
    neurons=((0, 19), tuple(range(1, 20)), (7,)),
)


@pytest.fixture
def model():
    return made(BertForSequenceClassification, BertConfig(**SIZES))


@pytest.fixture
def factorised():
    config = CompactBertConfig(**SIZES, ranks=RANKS, embedding_rank=6)
    return made(CompactBertForSequenceClassification, config)


@torch.no_grad()
def first_output(model):
    return model(**INPUTS)[0]


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def agree(one, other):
    torch.testing.assert_close(first_output(one), first_output(other), atol=1e-5, rtol=1e-5)


def everything(model):
    return keep_most_important(by_chance(model, 0), heads=1.0, neurons=1.0)


def gated(model, kept):
    """A copy with its weights, whose other heads and neurons are multiplied by 0 on the way out."""
    model = copy.deepcopy(model)

    def gate(linear, places):
        mask = torch.zeros(linear.in_features)
        mask[places] = 1
        linear.register_forward_pre_hook(lambda module, inputs: (inputs[0] * mask,))

    for layer, heads, neurons in zip(layers_of(model), *kept, strict=True):
        size = layer.attention.self.attention_head_size
        gate(layer.attention.output.dense, [h * size + k for h in heads for k in range(size)])
        gate(layer.output.dense, list(neurons))
    return model


# Which parts stay


SCORES = Importance(
    heads=(torch.tensor([0.1, 0.4, 0.3, 0.2]), torch.tensor([0.9, 0.8, 0.7, 0.6])),
    neurons=(torch.tensor([5.0, 1.0]), torch.tensor([1.0, 2.0, 4.0, 3.0])),
)


@pytest.mark.parametrize(
    ("heads", "neurons", "across", "expected"),
    [
        (0.5, 0.5, False, Kept(((1, 2), (0, 1)), ((0,), (2, 3)))),
        (0.75, 1.0, False, Kept(((1, 2, 3), (0, 1, 2)), ((0, 1), (0, 1, 2, 3)))),
        (0.01, 0.01, False, Kept(((1,), (0,)), ((0,), (2,)))),
        (0.5, 0.5, True, Kept(((1,), (0, 1, 2)), ((0,), (2, 3)))),
        (0.01, 0.01, True, Kept(((1,), (0,)), ((0,), (2,)))),
        (1.0, 1.0, True, Kept(((0, 1, 2, 3), (0, 1, 2, 3)), ((0, 1), (0, 1, 2, 3)))),
    ],
)
def test_the_highest_scores_stay(heads, neurons, across, expected):
    kept = keep_most_important(SCORES, heads=heads, neurons=neurons, across_layers=across)
    assert kept == expected


def test_of_equals_the_first_stay():
    even = Importance((torch.ones(4), torch.ones(4)), (torch.ones(6), torch.ones(6)))
    each = keep_most_important(even, heads=0.5, neurons=0.5)
    assert each == Kept(((0, 1), (0, 1)), ((0, 1, 2), (0, 1, 2)))
    together = keep_most_important(even, heads=0.5, neurons=0.5, across_layers=True)
    assert together == Kept(((0, 1, 2), (0,)), ((0, 1, 2, 3, 4), (0,)))


@pytest.mark.parametrize("share", [0, 0.0, -0.1, 1.01, math.nan, None, "1", [1], True])
@pytest.mark.parametrize("name", ["heads", "neurons"])
def test_shares_that_cannot_be_kept(share, name):
    with pytest.raises(ModelError, match=f"of the {name} cannot be kept"):
        keep_most_important(SCORES, **{"heads": 0.5, "neurons": 0.5, name: share})


def test_a_score_that_is_no_number():
    broken = Importance(SCORES.heads, (torch.tensor([1.0, math.nan]), SCORES.neurons[1]))
    with pytest.raises(ModelError, match="A score of the neurons is not a number"):
        keep_most_important(broken, heads=1.0, neurons=1.0)


# Shrunk = masked


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_part_is_a_masked_part(kind, attention):
    model = made(kind, BertConfig(**SIZES, attn_implementation=attention))
    before = bits(model)
    small, hidden = remove(model, SOME), masked(model, SOME)
    assert type(small) is KINDS[kind]
    assert type(hidden) is kind
    agree(small, hidden)
    agree(hidden, gated(model, SOME))
    assert (first_output(small) - first_output(model)).abs().max() > 0.01
    assert same_bits(bits(model), before)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("across", [False, True])
def test_shrunk_is_masked_for_any_choice(seed, across, model, factorised):
    for some in (model, factorised):
        ranking = by_chance(some, seed)
        kept = keep_most_important(ranking, heads=0.5, neurons=0.3, across_layers=across)
        agree(remove(some, kept), masked(some, kept))
        agree(remove(some, kept), gated(some, kept))


def test_what_is_removed_is_gone(model):
    small = remove(model, SOME)
    assert small.config.heads_per_layer == [1, 4, 2]
    assert small.config.neurons_per_layer == [2, 19, 1]
    head = 6 * (4 * 24 + 3)  # rows of query, key and value with biases; columns of the output
    neuron = 24 + 1 + 24
    gone = (3 + 0 + 2) * head + (18 + 1 + 19) * neuron
    assert parameters(small) == parameters(model) - gone
    assert encoder_parameters(small) == encoder_parameters(model) - gone
    assert not any(name.endswith(("mask", "orig")) for name in small.state_dict())
    hidden = masked(model, SOME)
    assert parameters(hidden) == parameters(model)
    zeros = sum(int((p == 0).sum()) for p in hidden.parameters())
    assert zeros == gone


def test_all_parts_kept_are_the_model_to_the_last_bit(model):
    model = copy.deepcopy(model)  # whose weights lie in memory as a new model's
    assert torch.equal(first_output(remove(model, everything(model))), first_output(model))


def test_the_order_in_which_parts_are_named_does_not_count(model):
    named = Kept(tuple(h[::-1] for h in SOME.heads), tuple(n[::-1] for n in SOME.neurons))
    assert same_bits(bits(remove(model, named)), bits(remove(model, SOME)))


def test_a_pruned_model_can_be_pruned_again(model):
    first = Kept(((0, 2, 3), (1, 2), (3,)), ((1, 3, 5, 7), (0, 19), tuple(range(20))))
    then = Kept(((1, 2), (0,), (0,)), ((0, 3), (1,), (4, 5)))
    together = Kept(((2, 3), (1,), (3,)), ((1, 7), (19,), (4, 5)))
    twice = remove(remove(model, first), then)
    assert same_bits(bits(twice), bits(remove(model, together)))
    assert twice.config.heads_per_layer == [2, 1, 1]


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_data_type_stay(training, model):
    model = model.to(torch.bfloat16).train(training)
    for small in (remove(model, SOME), remove_hidden(model, range(5)), masked(model, SOME)):
        assert small.training is training
        assert {p.dtype for p in small.parameters()} == {torch.bfloat16}


def test_the_decoder_stays_tied():
    model = made(BertForMaskedLM, BertConfig(**SIZES))
    for small in (remove(model, SOME), remove_hidden(model, range(0, 24, 3))):
        assert small.cls.predictions.decoder.weight is small.get_input_embeddings().weight


def test_a_pruned_and_trimmed_model_is_loaded_in_a_new_process(tiny_teacher_folder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    kept = keep_most_important(by_chance(model, 0), heads=0.5, neurons=0.4, across_layers=True)
    ids = tokenizer(TEXTS[:5], return_attention_mask=False)["input_ids"]
    keep = tokens_to_keep(tokenizer, ids, at_least=0)
    small = trim_vocabulary(remove(model, kept), tokenizer, keep)
    small.model.save_pretrained(tmp_path / "small")
    small.tokenizer.save_pretrained(tmp_path / "small")
    code = """
import sys
import numpy as np
from course_utils.models.classifier import TorchClassifier
np.save(sys.argv[2], TorchClassifier(sys.argv[1]).predict(sys.argv[3:]))
"""
    files = [tmp_path / "small", tmp_path / "logits.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, files), *TEXTS], check=True)
    expected = TorchClassifier.of(masked(model, kept), tokenizer, name="masked").predict(TEXTS[:5])
    np.testing.assert_allclose(np.load(files[1])[:5], expected, atol=1e-5, rtol=1e-5)


# Hidden width

# Which dimensions of a tensor run along the hidden states, by the end of its name.
ALONG_HIDDEN = {
    "word_embeddings.weight": [1],
    "word_embeddings.up.weight": [0],
    "position_embeddings.weight": [1],
    "token_type_embeddings.weight": [1],
    "LayerNorm.weight": [0],
    "LayerNorm.bias": [0],
    "query.weight": [1],
    "key.weight": [1],
    "value.weight": [1],
    "query.down.weight": [1],
    "attention.output.dense.weight": [0],
    "attention.output.dense.bias": [0],
    "attention.output.dense.up.weight": [0],
    "attention.output.dense.up.bias": [0],
    "intermediate.dense.weight": [1],
    "intermediate.dense.down.weight": [1],
    "output.dense.weight": [0],
    "output.dense.bias": [0],
    "output.dense.up.weight": [0],
    "output.dense.up.bias": [0],
    "pooler.dense.weight": [0, 1],
    "pooler.dense.bias": [0],
    "pooler.dense.down.weight": [1],
    "pooler.dense.up.weight": [0],
    "pooler.dense.up.bias": [0],
    "transform.dense.weight": [0, 1],
    "transform.dense.bias": [0],
    "decoder.weight": [1],
    "classifier.weight": [1],
}


def narrow_by_hand(state, keep):
    narrow = {}
    for name, tensor in state.items():
        ends = [end for end in ALONG_HIDDEN if name.endswith(end)]
        for dim in ALONG_HIDDEN[max(ends, key=len)] if ends else []:
            tensor = tensor.index_select(dim, torch.tensor(keep))
        narrow[name] = tensor
    return narrow


@pytest.mark.parametrize("keep", [[0, 3, 5, 11, 23], list(range(23)), list(range(12))])
@pytest.mark.parametrize("kind", [*KINDS, "factorised"])
def test_every_tensor_keeps_the_same_coordinates(kind, keep, factorised):
    model = factorised if kind == "factorised" else made(kind, BertConfig(**SIZES))
    before = bits(model)
    small = remove_hidden(model, keep[::-1])
    assert small.config.hidden_size == len(keep)
    assert small.config.head_size == 6
    assert same_bits(bits(small), narrow_by_hand(before, keep))
    assert same_bits(bits(model), before)
    assert first_output(small).isfinite().all()


def test_all_coordinates_kept_are_the_model_to_the_last_bit(model):
    model = copy.deepcopy(model)
    assert torch.equal(first_output(remove_hidden(model, range(24))), first_output(model))


def test_narrow_then_pruned_and_the_other_way_round(model, tmp_path):
    keep = [1, 2, 3, 5, 8, 13, 21]
    one, other = remove(remove_hidden(model, keep), SOME), remove_hidden(remove(model, SOME), keep)
    assert same_bits(bits(one), bits(other))
    one.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    agree(again, other)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ([], "No coordinate of the hidden states would be left"),
        ([0, 24], "0 to 23"),
        ([-1], "0 to 23"),
        ([1, 1], "each once"),
        ([0.5], "0 to 23"),
    ],
)
def test_coordinates_that_cannot_be_kept(keep, words, model):
    with pytest.raises(ModelError, match=words):
        remove_hidden(model, keep)


# The schedule and the size


def test_the_cubic_schedule():
    assert gradual(0, 0.5, 1) == (0.5,)
    assert gradual(0.0, 0.8, 4) == pytest.approx((0.4625, 0.7, 0.7875, 0.8))
    shares = gradual(0.2, 0.9, 10)
    assert shares[-1] == 0.9
    assert shares[0] > 0.2
    steps = np.diff([0.2, *shares])
    assert (steps > 0).all()
    assert (np.diff(steps) < 0).all()  # ever slower
    assert gradual(0.3, 0.3, 3) == pytest.approx((0.3, 0.3, 0.3))


@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [
        (-0.1, 0.5, 3),
        (0, 1, 3),
        (0.5, 0.4, 3),
        (0, 0.5, 0),
        (None, 0.5, 3),
        (0, "0.5", 3),
        (0, 0.5, 2.5),
        (0, 0.5, True),
    ],
)
def test_no_schedule(start, end, steps):
    with pytest.raises(ModelError, match="no schedule"):
        gradual(start, end, steps)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_of_the_encoder(kind):
    model = made(kind, BertConfig(**SIZES))
    named = {n: p.numel() for n, p in model.named_parameters() if "encoder.layer." in n}
    assert encoder_parameters(model) == sum(named.values())
    assert len(named) == 3 * 16


# Words, not tracebacks


@pytest.mark.parametrize("cut", [remove, masked])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k: k._replace(heads=((), *k.heads[1:])), "No head of layer 0 would be left"),
        (lambda k: k._replace(neurons=(*k.neurons[:2], ())), "No neuron of layer 2 would be left"),
        (lambda k: k._replace(heads=((4,), *k.heads[1:])), "0 to 3, each once"),
        (lambda k: k._replace(heads=((-1,), *k.heads[1:])), "0 to 3, each once"),
        (lambda k: k._replace(neurons=((3, 3), *k.neurons[1:])), "neurons .* of layer 0"),
        (lambda k: k._replace(neurons=((20,), *k.neurons[1:])), "0 to 19"),
        (lambda k: Kept(k.heads[:2], k.neurons[:2]), "the model has 3"),
        (lambda k: Kept(k.heads, k.neurons[:2]), "the model has 3"),
    ],
)
def test_parts_that_cannot_be_kept(cut, change, words, model):
    before = bits(model)
    with pytest.raises(ModelError, match=words):
        cut(model, change(SOME))
    assert same_bits(bits(model), before)


@pytest.mark.parametrize("cut", [remove, masked, lambda m, _: remove_hidden(m, [0])])
def test_another_family(cut):
    sizes = {"vocab_size": 50, "dim": 8, "n_heads": 2, "n_layers": 1, "hidden_dim": 8}
    model = DistilBertForSequenceClassification(DistilBertConfig(**sizes))
    with pytest.raises(ModelError, match="DistilBertForSequenceClassification"):
        cut(model, Kept(((0,),), ((0,),)))


def test_a_rank_that_no_longer_fits(factorised):
    kept = everything(factorised)
    kept = kept._replace(neurons=(*kept.neurons[:2], (3,)))
    with pytest.raises(ModelError, match="cannot have rank 2"):
        remove(factorised, kept)
