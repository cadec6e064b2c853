"""Factorised models are what their ranks say, are saved and shipped as any other."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pytest
import torch
from tiny import TEXTS, write_classifier
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from course_utils.compress.lowrank import factorise, factorise_embeddings
from course_utils.compress.moments import input_moments, linears
from course_utils.compress.ranks import spectra
from course_utils.compress.svd import break_even_rank, energy_rank, low_rank, saves, spectrum
from course_utils.compress.vocabulary import tokens_to_keep, trim_vocabulary
from course_utils.data.encoding import EncodedTexts
from course_utils.errors import DataError, ModelError
from course_utils.models.classifier import TorchClassifier
from course_utils.models.compact_bert import Factorised
from course_utils.models.mlm import add_mlm_head
from course_utils.ship.onnx import to_onnx
from course_utils.ship.runtime import OnnxClassifier


def state(model, *, weights_only: bool = False) -> str:
    about = "" if weights_only else f"{model.config.to_dict()} {model.training}"
    digest = hashlib.sha256(about.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()


def logits_of(model, texts: EncodedTexts) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(torch.tensor([ids])).logits for ids in texts.input_ids])


def full_ranks(model) -> dict[str, int]:
    return {name: min(layer.weight.shape) for name, layer in linears(model).items()}


FEED = "bert.encoder.layer.1.output.dense"
QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize("with_texts", [False, True])
def test_at_full_rank_the_model_is_what_it_was(model, texts, with_texts):
    ranks = full_ranks(model) | {"bert.pooler.dense": 32, "classifier": 3}
    thin = factorise(model, ranks, texts=texts if with_texts else None)
    assert thin.config.ranks == ranks
    assert not linears(thin)
    expected = logits_of(model, texts)
    torch.testing.assert_close(logits_of(thin, texts), expected, rtol=1e-4, atol=1e-4)


def test_only_the_chosen_layers_change_and_each_is_the_best_of_its_rank(model, texts):
    before, dice = state(model), torch.get_rng_state()
    thin = factorise(model, {FEED: 5, QUERY: 3})
    for name, rank in ((FEED, 5), (QUERY, 3)):
        layer, old = thin.get_submodule(name), model.get_submodule(name)
        assert isinstance(layer, Factorised)
        expected = low_rank(old.weight, rank)
        torch.testing.assert_close(layer.up.weight @ layer.down.weight, expected.up @ expected.down)
        assert torch.equal(layer.up.bias, old.bias)
    ours, theirs = thin.state_dict(), model.state_dict()
    for name in theirs.keys() & ours.keys():
        assert torch.equal(ours[name], theirs[name])
        assert ours[name].data_ptr() != theirs[name].data_ptr()
    assert len(theirs.keys() - ours.keys()) == 4
    saved = saves(32, 64, 5) + saves(32, 32, 3)
    assert thin.num_parameters() == model.num_parameters() - saved
    assert not torch.equal(logits_of(thin, texts), logits_of(model, texts))
    assert (state(model), torch.get_rng_state().tolist()) == (before, dice.tolist())


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_data_type_stay_and_the_model_is_not_touched(model, texts, training):
    half = copy.deepcopy(model).to(torch.bfloat16).train(training)
    before = state(half)
    for thin in (factorise(half, {FEED: 4}, texts=texts), factorise_embeddings(half, 8)):
        assert thin.training is training
        assert {p.dtype for p in thin.parameters()} == {torch.bfloat16}
    assert state(half) == before
    assert not any(module._forward_pre_hooks for module in half.modules())


def test_with_texts_a_layer_loses_less_on_what_it_is_given(model, texts):
    moments = input_moments(model, texts)
    ranks = dict.fromkeys(linears(model), 6)
    thins = factorise(model, ranks), factorise(model, ranks, texts=texts)
    for name, layer in linears(model).items():
        lost = []
        for thin in thins:
            factors = thin.get_submodule(name)
            rest = (layer.weight - factors.up.weight @ factors.down.weight).detach().double()
            lost.append(float(((rest @ moments[name]) * rest).sum()))
        assert lost[1] < lost[0]
        least = spectrum(layer.weight, moments[name])[6:].square().sum()
        assert lost[1] == pytest.approx(float(least), rel=1e-2)


@pytest.mark.parametrize("with_texts", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_share_of_the_energy_is_a_rank_per_layer_where_that_saves(
    model, texts, share, with_texts
):
    texts = texts if with_texts else None
    expected = {name: energy_rank(s, share) for name, s in spectra(model, texts=texts).items()}
    shapes = {name: layer.weight.shape for name, layer in linears(model).items()}
    expected = {n: rank for n, rank in expected.items() if rank < break_even_rank(*shapes[n])}
    thin = factorise(model, share, texts=texts)
    assert thin.config.ranks == expected
    assert set(linears(thin)) == set(shapes) - set(expected)
    assert thin.num_parameters() < model.num_parameters()


def test_all_of_the_energy_leaves_every_layer_whole(model, texts):
    thin = factorise(model, 1.0)
    assert thin.config.ranks == {}
    assert torch.equal(logits_of(thin, texts), logits_of(copy.deepcopy(model), texts))


def test_what_is_whole_can_be_factorised_later(model, texts):
    one = factorise(factorise_embeddings(model, 12), {FEED: 4})
    two = factorise(one, {QUERY: 3}, texts=texts)
    assert two.config.ranks == {FEED: 4, QUERY: 3}
    assert two.config.embedding_rank == 12
    assert one.config.ranks == {FEED: 4}
    assert torch.equal(two.get_submodule(FEED).up.weight, one.get_submodule(FEED).up.weight)


def test_an_encoder_without_a_head_is_factorised_under_the_same_names(model, texts):
    thin = factorise_embeddings(factorise(model.bert, {FEED: 4}, texts=texts), 8)
    assert thin.config.ranks == {FEED: 4}
    expected = factorise_embeddings(factorise(model, {FEED: 4}, texts=texts), 8).bert
    ids = torch.tensor([texts.input_ids[0]])
    torch.testing.assert_close(thin(ids).pooler_output, expected(ids).pooler_output)


# Word embeddings


def test_embeddings_of_full_rank_are_what_they_were(model, texts):
    thin = factorise_embeddings(model, 32)
    assert thin.config.embedding_rank == 32
    expected = logits_of(model, texts)
    torch.testing.assert_close(logits_of(thin, texts), expected, rtol=1e-4, atol=1e-4)


def test_embeddings_are_the_best_of_their_rank_and_everything_else_a_copy(model):
    before = state(model)
    thin = factorise_embeddings(model, 8)
    words, old = thin.bert.embeddings.word_embeddings, model.bert.embeddings.word_embeddings
    assert (words.table.weight.shape, words.up.weight.shape) == ((120, 8), (32, 8))
    assert words.table.padding_idx == old.padding_idx
    u, s, v = torch.linalg.svd(old.weight.detach(), full_matrices=False)
    expected = (u[:, :8] * s[:8]) @ v[:8]
    torch.testing.assert_close(words(torch.arange(120)), expected, rtol=1e-4, atol=1e-4)
    theirs = model.state_dict()
    for name, tensor in thin.state_dict().items():
        assert "word_embeddings" in name or torch.equal(tensor, theirs[name])
    assert thin.num_parameters() == model.num_parameters() - saves(120, 32, 8)
    assert state(model) == before


def test_with_texts_their_words_keep_more(model, texts):
    old = model.bert.embeddings.word_embeddings.weight
    used = torch.tensor([i for ids in texts.input_ids for i in ids])

    def lost(thin, ids: torch.Tensor) -> float:
        new = thin.bert.embeddings.word_embeddings(ids)
        return (new - old[ids]).square().sum().item()

    plain, weighted = factorise_embeddings(model, 8), factorise_embeddings(model, 8, texts=texts)
    assert lost(weighted, used) < 0.95 * lost(plain, used)
    everything = torch.cat([used, torch.arange(120)])
    u, _, _ = torch.linalg.svd(old[everything].T.detach(), full_matrices=False)
    least = (old[everything] @ u[:, 8:]).square().sum().item()
    assert lost(weighted, everything) == pytest.approx(least, rel=1e-3)


def test_a_masked_language_model_keeps_its_decoder(model, texts):
    guesser = add_mlm_head(model)
    thin = factorise_embeddings(factorise(guesser, full_ranks(guesser)), 32)
    expected = guesser(torch.tensor([texts.input_ids[0]])).logits
    found = thin(torch.tensor([texts.input_ids[0]])).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    factorised = factorise(guesser, {FEED: 4})
    head = factorised.cls.predictions.decoder
    assert head.weight is factorised.bert.embeddings.word_embeddings.weight


def test_a_factorised_table_is_trimmed_as_any_other(model, tokenizer, texts):
    thin = factorise_embeddings(factorise(model, {FEED: 4}), 8)
    keep = tokens_to_keep(tokenizer, texts.input_ids[:3], at_least=0)
    small = trim_vocabulary(thin, tokenizer, keep)
    assert small.model.bert.embeddings.word_embeddings.table.weight.shape == (len(keep), 8)
    ids = torch.tensor([texts.input_ids[0]])
    torch.testing.assert_close(small.model(small.new_ids[ids]).logits, thin(ids).logits)


# Saved and shipped


def test_saved_and_loaded_it_is_the_same_and_is_shipped_as_any_other(tmp_path, texts):
    folder = write_classifier(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    thin = factorise_embeddings(factorise(model, 0.6, texts=texts), 12, texts=texts)
    assert thin.config.ranks
    thin.save_pretrained(folder)
    again = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert state(again, weights_only=True) == state(thin, weights_only=True)
    assert again.config.ranks == thin.config.ranks
    again = TorchClassifier(folder)
    ours = TorchClassifier.of(thin, again.tokenizer, name="it").predict(TEXTS)
    torch.testing.assert_close(torch.tensor(again.predict(TEXTS)), torch.tensor(ours))
    to_onnx(folder, tmp_path / "onnx", int8=False)
    shipped = OnnxClassifier(tmp_path / "onnx").predict(TEXTS)
    assert abs(shipped - ours).max() < 1e-4
    to_onnx(folder, tmp_path / "int8", int8=True)
    shipped = OnnxClassifier(tmp_path / "int8").predict(TEXTS)
    assert abs(shipped - ours).max() > 1e-6
    assert np.corrcoef(shipped.ravel(), ours.ravel())[0, 1] > 0.99


def test_a_masked_language_model_is_loaded_with_both_tables(model, texts, tmp_path):
    thin = factorise_embeddings(add_mlm_head(model), 8)
    thin.save_pretrained(tmp_path)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert state(again, weights_only=True) == state(thin, weights_only=True)


# Refused


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ({"bert.encoder.layer.9.output.dense": 4}, "no linear layer 'bert.encoder.layer.9"),
        ({"bert.embeddings.word_embeddings": 4}, "no linear layer"),
        ({FEED: 33}, "32 x 64 has no rank 33"),
        ({FEED: 0}, "no rank 0"),
        ({FEED: 4.5}, r"no rank 4\.5"),
        ({FEED: True}, "no rank True"),
        (0.0, "above 0"),
        (8, "dict.fromkeys"),
        ("half", "above 0"),
    ],
)
def test_ranks_that_cannot_be_are_refused(model, ranks, words):
    before = state(model)
    with pytest.raises(ModelError, match=words):
        factorise(model, ranks)
    assert state(model) == before


def test_what_is_factorised_already_is_refused(model):
    thin = factorise_embeddings(factorise(model, {FEED: 4}), 8)
    with pytest.raises(ModelError, match="already, with rank 4"):
        factorise(thin, {FEED: 2})
    with pytest.raises(ModelError, match="no linear layer"):
        factorise(thin, {f"{FEED}.up": 2})
    with pytest.raises(ModelError, match="rank 8 already"):
        factorise_embeddings(thin, 4)


def test_a_decoder_that_shares_its_weight_is_refused(model):
    with pytest.raises(ModelError, match="shares its weight"):
        factorise(add_mlm_head(model), {"cls.predictions.decoder": 4})


@pytest.mark.parametrize("rank", [0, 33, 2.0])
def test_embeddings_of_an_impossible_rank_are_refused(model, rank):
    with pytest.raises(ModelError, match=f"has no rank {rank}"):
        factorise_embeddings(model, rank)


def test_another_family_is_refused():
    config = DistilBertConfig(vocab_size=120, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    model = DistilBertForSequenceClassification(config)
    calls = [
        lambda: factorise(model, 0.5),
        lambda: factorise_embeddings(model, 8),
    ]
    for call in calls:
        with pytest.raises(ModelError, match="DistilBert"):
            call()


def test_texts_that_the_model_cannot_read_are_refused(model, texts):
    reads = [(EncodedTexts([]), "reads 1 to 64"), (EncodedTexts([[2] * 65]), "reads 1 to 64")]
    for wrong, words in [*reads, (EncodedTexts([[2, 120]]), "id 120; the model has 120")]:
        with pytest.raises(DataError, match=words):
            factorise(model, {FEED: 4}, texts=wrong)
        with pytest.raises(DataError, match=words):
            factorise_embeddings(model, 4, texts=wrong)
