"""Layers of unequal size and factorised ones compute, train, are saved and load as any BERT."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TEXTS, made, write_tokenizer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from course_utils.data.encoding import encode
from course_utils.distill import trainer
from course_utils.distill.trainer import Recipe, train
from course_utils.errors import ModelError
from course_utils.machine import describe
from course_utils.models.classifier import TorchClassifier
from course_utils.models.compact_bert import (
    CompactBertConfig,
    CompactBertForMaskedLM,
    CompactBertForSequenceClassification,
    CompactBertModel,
    Factorised,
    FactorisedEmbedding,
    compact,
    layers_of,
)
from course_utils.ship.onnx import to_onnx
from course_utils.ship.runtime import OnnxClassifier

SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "num_labels": 3,
    "initializer_range": 0.2,
}
UNEQUAL = SIZES | {
    "hidden_size": 30,  # no multiple of 4
    "head_size": 8,
    "heads_per_layer": [1, 4, 2],
    "neurons_per_layer": [1, 48, 17],
}
RANKS = {
    "bert.encoder.layer.0.attention.self.query": 3,
    "bert.encoder.layer.1.output.dense": 5,
    "bert.encoder.layer.2.attention.output.dense": 30 - 14,
}
FACTORISED = UNEQUAL | {"ranks": RANKS, "embedding_rank": 7}
INPUTS = {
    "input_ids": torch.tensor([[2, 17, 33, 3, 0], [2, 98, 44, 21, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
}
PLAIN = [BertModel, BertForSequenceClassification, BertForMaskedLM]
COMPACT = [CompactBertModel, CompactBertForSequenceClassification, CompactBertForMaskedLM]


@torch.no_grad()
def first_output(model):
    return model(**INPUTS)[0]


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# A plain BERT as a compact one


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("plain", "kind"), list(zip(PLAIN, COMPACT, strict=True)))
def test_compact_computes_the_same_bits_and_leaves_the_model_alone(plain, kind, attention):
    # A copy, whose weights lie in memory as a new model's do.
    model = copy.deepcopy(made(plain, BertConfig(**SIZES, attn_implementation=attention)))
    before = bits(model)
    new = compact(model)
    assert type(new) is kind
    assert new.config._attn_implementation == attention
    assert torch.equal(first_output(new), first_output(model))
    with torch.no_grad():
        for weight in new.parameters():
            weight.zero_()
    assert same_bits(bits(model), before)
    assert type(model.config) is BertConfig


def test_a_compact_model_is_copied():
    model = made(CompactBertForSequenceClassification, CompactBertConfig(**FACTORISED))
    new = compact(model)
    assert type(new) is type(model)
    assert same_bits(bits(new), bits(model))
    new.config.ranks.clear()
    new.classifier.bias.data.zero_()
    assert model.config.ranks == RANKS
    assert model.classifier.bias.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compact_keeps_mode_data_type_and_settings(training, dtype):
    config = BertConfig(**SIZES, hidden_act="relu", classifier_dropout=0.3, pad_token_id=5)
    model = made(BertForSequenceClassification, config).to(dtype).train(training)
    new = compact(model)
    assert new.training is training
    assert {weight.dtype for weight in new.parameters()} == {dtype}
    theirs, ours = config.to_dict(), new.config.to_dict()
    changed = {name for name in theirs if theirs[name] != ours[name]}
    assert changed <= {"model_type", "architectures", "dtype", "_name_or_path"}
    assert new.dropout.p == 0.3


# Sizes of its own for every layer


@pytest.mark.parametrize("kind", COMPACT)
def test_each_layer_has_the_sizes_of_the_configuration(kind):
    model = made(kind, CompactBertConfig(**UNEQUAL))
    shapes = {name: tuple(t.shape) for name, t in model.base_model.state_dict().items()}
    for i, (heads, neurons) in enumerate(zip([1, 4, 2], [1, 48, 17], strict=True)):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            assert shapes[f"{layer}.attention.self.{name}.weight"] == (8 * heads, 30)
            assert shapes[f"{layer}.attention.self.{name}.bias"] == (8 * heads,)
        assert shapes[f"{layer}.attention.output.dense.weight"] == (30, 8 * heads)
        assert shapes[f"{layer}.intermediate.dense.weight"] == (neurons, 30)
        assert shapes[f"{layer}.output.dense.weight"] == (30, neurons)
    assert len(layers_of(model)) == 3


def test_what_is_not_given_is_as_in_a_bert():
    config = CompactBertConfig(**SIZES)
    assert config.heads_per_layer == [4, 4, 4]
    assert config.neurons_per_layer == [48, 48, 48]
    assert config.head_size == 8
    assert config.ranks == {}
    assert config.embedding_rank is None


def test_new_weights_are_drawn_as_transformers_draws_them():
    torch.manual_seed(0)
    model = CompactBertForMaskedLM(CompactBertConfig(**FACTORISED))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight.numel() > 200:
            assert 0.15 < module.weight.std() < 0.25  # initializer_range is 0.2
            if module.bias is not None:
                assert not module.bias.any()


@pytest.mark.parametrize("kind", COMPACT)
def test_fused_and_plain_attention_agree_and_show_their_weights(kind):
    model = made(kind, CompactBertConfig(**FACTORISED))
    fused = first_output(model)
    model.set_attn_implementation("eager")
    outputs = model(**INPUTS, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(outputs[0], fused, atol=1e-5, rtol=1e-5)
    assert [a.shape for a in outputs.attentions] == [(2, n, 5, 5) for n in (1, 4, 2)]
    assert [h.shape for h in outputs.hidden_states] == [(2, 5, 30)] * 4
    for attention in outputs.attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))


def test_it_runs_in_bfloat16():
    model = made(CompactBertForSequenceClassification, CompactBertConfig(**FACTORISED))
    exact = first_output(model)
    rough = first_output(model.to(torch.bfloat16))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


# Factors


@pytest.mark.parametrize("bias", [True, False])
def test_a_factorised_layer_is_the_product_of_its_factors(bias):
    torch.manual_seed(0)
    factorised, x = Factorised(6, 4, 2, bias=bias), torch.randn(3, 5, 6)
    expected = torch.einsum("bsi,ri,or->bso", x, factorised.down.weight, factorised.up.weight)
    if bias:
        expected = expected + factorised.up.bias
    torch.testing.assert_close(factorised(x), expected)
    assert (factorised.in_features, factorised.out_features, factorised.rank) == (6, 4, 2)
    assert sum(p.numel() for p in factorised.parameters()) == 2 * (6 + 4) + 4 * bias


def test_a_factorised_embedding_looks_up_rows_of_the_product():
    torch.manual_seed(0)
    embedding = FactorisedEmbedding(11, 6, 2, padding_idx=0)
    table = embedding.table.weight @ embedding.up.weight.T  # (V, H)
    ids = torch.tensor([[3, 0], [10, 3]])
    torch.testing.assert_close(embedding(ids), table[ids])
    embedding(ids).sum().backward()
    assert not embedding.table.weight.grad[0].any()  # padding learns nothing, as in BERT
    assert embedding.table.weight.grad[3].any()


@pytest.mark.parametrize("kind", COMPACT)
def test_a_factorised_model_computes_what_the_products_do(kind):
    model = made(kind, CompactBertConfig(**FACTORISED))
    whole = made(kind, CompactBertConfig(**UNEQUAL | {"tie_word_embeddings": False}), seed=1)
    weights, prefix = bits(model), "" if kind is CompactBertModel else "bert."
    for name in RANKS:
        name = prefix + name.removeprefix("bert.")
        weights[f"{name}.weight"] = weights.pop(f"{name}.up.weight") @ weights.pop(
            f"{name}.down.weight"
        )
        weights[f"{name}.bias"] = weights.pop(f"{name}.up.bias")
    words = f"{prefix}embeddings.word_embeddings"
    up = weights.pop(f"{words}.up.weight")
    weights[f"{words}.weight"] = weights.pop(f"{words}.table.weight") @ up.T
    whole.load_state_dict(weights)
    torch.testing.assert_close(first_output(whole), first_output(model), atol=1e-5, rtol=1e-5)


def test_pooler_and_classifier_can_be_factorised_and_the_encoder_alone_ignores_the_head(tmp_path):
    config = CompactBertConfig(**UNEQUAL, ranks={"bert.pooler.dense": 4, "classifier": 2})
    model = made(CompactBertForSequenceClassification, config)
    assert isinstance(model.classifier, Factorised)
    assert model.bert.pooler.dense.rank == 4
    model.save_pretrained(tmp_path)
    alone = AutoModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(first_output(alone), first_output(model.bert))


# The masked-language head


def test_the_decoder_shares_the_table_unless_it_is_factorised(tmp_path):
    for sizes, shared in ((UNEQUAL, True), (FACTORISED, False)):
        made(CompactBertForMaskedLM, CompactBertConfig(**sizes)).save_pretrained(tmp_path)
        model = AutoModelForMaskedLM.from_pretrained(tmp_path)
        decoder = model.cls.predictions.decoder
        assert decoder.weight.shape == (120, 30)
        assert (decoder.weight is model.get_input_embeddings().weight) is shared
        assert decoder.bias is model.cls.predictions.bias


# Saved and loaded


@pytest.mark.parametrize("sizes", [UNEQUAL, FACTORISED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_it_computes_the_same_bits(sizes, dtype, tmp_path):
    autos = [AutoModel, AutoModelForSequenceClassification, AutoModelForMaskedLM]
    for kind, auto in zip(COMPACT, autos, strict=True):
        made(kind, CompactBertConfig(**sizes)).to(dtype).save_pretrained(tmp_path)
        model = kind.from_pretrained(tmp_path).eval()
        again, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(again) is kind
        assert not any(info.values()), info
        assert again.dtype == dtype
        assert torch.equal(first_output(again.eval()), first_output(model))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "compact_bert"
    assert "auto_map" not in config
    assert config["heads_per_layer"] == [1, 4, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier folder with everything that a compact model may have."""
    folder = tmp_path_factory.mktemp("compact")
    model = made(CompactBertForSequenceClassification, CompactBertConfig(**FACTORISED))
    model.save_pretrained(folder)
    write_tokenizer(folder, SIZES["vocab_size"])
    return folder


def in_a_new_process(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, encoding="utf-8"
    )


def test_a_new_process_loads_it_with_the_courses_classifier(folder, tmp_path):
    code = """
import sys
import numpy as np
from course_utils.models.classifier import TorchClassifier
np.save(sys.argv[2], TorchClassifier(sys.argv[1]).predict(sys.argv[3:]))
"""
    done = in_a_new_process(code, folder, tmp_path / "logits.npy", *TEXTS)
    assert done.returncode == 0, done.stderr
    here = TorchClassifier(folder).predict(TEXTS)
    assert np.array_equal(np.load(tmp_path / "logits.npy"), here)


def test_transformers_alone_says_that_it_does_not_know_the_kind(folder):
    code = """
import sys
from transformers import AutoModelForSequenceClassification
AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
"""
    done = in_a_new_process(code, folder)
    assert done.returncode == 1
    assert "`compact_bert`" in done.stderr
    assert "does not recognize this architecture" in done.stderr


# In the rest of the course


def test_it_is_exported_to_onnx(folder, tmp_path):
    parity = to_onnx(folder, tmp_path / "onnx", int8=False, check_texts=TEXTS)
    assert parity.max_abs_diff < 1e-4
    ours = OnnxClassifier(tmp_path / "onnx").predict(TEXTS)
    np.testing.assert_allclose(ours, TorchClassifier(folder).predict(TEXTS), atol=1e-4)


@pytest.mark.parametrize("freeze_words", [True, False])
def test_it_is_trained_and_its_table_can_be_frozen(folder, freeze_words, monkeypatch):
    machine = replace(describe(), device="cpu", dtype="float32")
    monkeypatch.setattr(trainer, "describe", lambda: machine)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    before = bits(model)
    texts = encode(AutoTokenizer.from_pretrained(folder), TEXTS, [0, 1, 2, 0, 1, 2, 0, 1])
    recipe = Recipe(epochs=12, learning_rate=3e-3, batch_size=8, freeze_words=freeze_words)
    log = train(model, texts, recipe, progress=False)
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    moved = {name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])}
    table = "bert.embeddings.word_embeddings.table.weight"
    assert (table in moved) is not freeze_words
    assert moved >= before.keys() - {table, "bert.encoder.layer.0.attention.self.key.bias"} - {
        name
        for name in before
        if name.endswith("key.bias")  # softmax does not see it
    }
    assert model.config._attn_implementation == "sdpa"


def test_the_table_can_be_replaced():
    for sizes in (UNEQUAL, FACTORISED):
        model = made(CompactBertForSequenceClassification, CompactBertConfig(**sizes))
        table = torch.nn.Embedding(120, model.config.embedding_size)
        model.set_input_embeddings(table)
        assert model.get_input_embeddings() is table
        assert first_output(model).shape == (2, 3)


# Words, not tracebacks


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads_per_layer": [1, 0, 2]}, "heads_per_layer"),
        ({"heads_per_layer": [1, 4]}, "3 layers"),
        ({"neurons_per_layer": [1, 2, 3, 4]}, "neurons_per_layer"),
        ({"neurons_per_layer": [1, 2, 2.5]}, "whole number"),
        ({"head_size": 0}, "head_size"),
        ({"embedding_rank": 0}, "embedding_rank"),
        ({"embedding_rank": -3}, "embedding_rank"),
        ({"ranks": {"bert.encoder.layer.1.output.dense": 31}}, "1 to 30"),
        ({"ranks": {"bert.encoder.layer.1.output.dense": 0}}, "rank 0"),
        ({"ranks": {"bert.encoder.layer.3.output.dense": 2}}, "no linear layer"),
        ({"ranks": {"bert.embeddings.LayerNorm": 2}}, "no linear layer"),
    ],
)
def test_sizes_that_cannot_be(changes, words):
    with pytest.raises(ModelError, match=words):
        CompactBertForSequenceClassification(CompactBertConfig(**UNEQUAL | changes))


def test_the_tied_decoder_is_not_factorised():
    config = CompactBertConfig(**UNEQUAL, ranks={"cls.predictions.decoder": 2})
    with pytest.raises(ModelError, match="tied to the word embeddings"):
        CompactBertForMaskedLM(config)


def distilbert():
    sizes = {"vocab_size": 50, "dim": 8, "n_heads": 2, "n_layers": 1, "hidden_dim": 8}
    return DistilBertForSequenceClassification(DistilBertConfig(**sizes))


@pytest.mark.parametrize(
    "make",
    [
        distilbert,
        lambda: BertForTokenClassification(BertConfig(**SIZES)),
        lambda: BertForMaskedLM(BertConfig(**SIZES, is_decoder=True)),
        lambda: torch.nn.Linear(2, 2),
    ],
)
def test_what_is_no_supported_bert_is_refused_and_told_what_is(make):
    with pytest.raises(ModelError, match="BertForSequenceClassification, BertForMaskedLM"):
        compact(make())


def test_layers_of_another_family_are_refused():
    with pytest.raises(ModelError, match="DistilBertForSequenceClassification has no layers"):
        layers_of(distilbert())


def test_layers_without_weights_are_refused():
    model = made(BertForSequenceClassification, BertConfig(**SIZES))
    model.bert.encoder.layer[1].intermediate.dense = torch.nn.Identity()
    with pytest.raises(ModelError, match="not linear any more, but Identity"):
        layers_of(model)


def test_a_model_changed_by_hand_is_refused():
    model = made(BertForSequenceClassification, BertConfig(**SIZES))
    model.classifier = torch.nn.Linear(32, 7)
    with pytest.raises(ModelError, match=r"classifier\.weight is \(7, 32\)"):
        compact(model)
    model = made(BertForSequenceClassification, BertConfig(**SIZES))
    model.bert.pooler.dense = torch.nn.Identity()
    with pytest.raises(ModelError, match=r"bert\.pooler\.dense\.weight is absent"):
        compact(model)
