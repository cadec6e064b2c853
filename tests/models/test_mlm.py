"""The masked-language head: what it is made of, what it sees, and what it guesses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
)

from course_utils.data.sources import find_model
from course_utils.errors import DataError, ModelError
from course_utils.models.mlm import (
    add_mlm_head,
    has_mlm_head,
    head_sees_only,
    load_masked_lm,
    top_guesses,
)

WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def encoder(tiny_teacher_folder) -> BertModel:
    """Of the tiny teacher, which is a classifier."""
    return AutoModel.from_pretrained(tiny_teacher_folder, dtype=torch.float32).eval()


@pytest.fixture
def model(encoder) -> BertForMaskedLM:
    """With a head in which nothing is zero."""
    model = add_mlm_head(encoder)
    torch.manual_seed(0)
    for weight in model.cls.predictions.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


IDS = torch.tensor([[2, 9, 30, 17, 3], [2, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
COUNTED = torch.tensor([[0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]).bool()


# The head


def test_the_encoder_is_copied_and_not_touched(encoder):
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    model = add_mlm_head(encoder)
    assert not model.training
    for name, weight in model.bert.state_dict().items():
        assert torch.equal(weight, before[name])
    with torch.no_grad():
        expected = encoder(IDS, MASK).last_hidden_state
        assert torch.equal(model.bert(IDS, MASK).last_hidden_state, expected)
        for weight in model.parameters():
            weight.add_(1.0)
    assert all(torch.equal(weight, before[n]) for n, weight in encoder.state_dict().items())
    assert encoder.pooler is not None


def test_the_decoder_is_tied_and_its_bias_is_its_own(encoder):
    model = add_mlm_head(encoder)
    head = model.cls.predictions
    assert head.decoder.weight is model.get_parameter(WORDS)
    assert head.decoder.bias is head.bias
    assert (head.bias == 0).all()
    assert head.bias.shape == (model.config.vocab_size,)
    n_head = sum(weight.numel() for weight in head.parameters()) - head.decoder.weight.numel()
    assert model.num_parameters() == model.bert.num_parameters() + n_head
    untied = BertConfig.from_dict(encoder.config.to_dict() | {"tie_word_embeddings": False})
    model = add_mlm_head(BertModel(untied))
    assert model.cls.predictions.decoder.weight is model.get_parameter(WORDS)
    assert not untied.tie_word_embeddings


def test_a_new_head_starts_at_the_nearest_embedding(encoder):
    model = add_mlm_head(encoder)
    with torch.no_grad():
        hidden = model.bert(IDS, MASK).last_hidden_state
        seen = torch.nn.functional.layer_norm(torch.nn.functional.gelu(hidden), (32,), eps=1e-12)
        expected = seen @ encoder.get_input_embeddings().weight.T
        torch.testing.assert_close(model(IDS, MASK).logits, expected, atol=1e-4, rtol=1e-4)


def test_the_head_by_hand(model):
    """Linear map, GELU, LayerNorm, product with the word embeddings, bias."""
    head = model.cls.predictions
    with torch.no_grad():
        hidden = model.bert(IDS, MASK).last_hidden_state
        x = hidden @ head.transform.dense.weight.T + head.transform.dense.bias
        x = x * (1 + torch.erf(x / 2**0.5)) / 2
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-12).sqrt()
        x = x * head.transform.LayerNorm.weight + head.transform.LayerNorm.bias
        expected = x @ model.get_parameter(WORDS).T + head.bias
        torch.testing.assert_close(model(IDS, MASK).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_classifiers_encoder_will_do(encoder, tiny_teacher_folder):
    from transformers import AutoModelForSequenceClassification

    whole = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)
    ours, expected = add_mlm_head(whole).state_dict(), add_mlm_head(encoder).state_dict()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize("junk", [DistilBertModel(DistilBertConfig(n_layers=1, dim=24)), None])
def test_what_is_no_bert_gets_no_head(junk):
    with pytest.raises(ModelError, match=f"A {type(junk).__name__} where a BERT"):
        add_mlm_head(junk)


# Only the counted positions


def test_the_head_sees_only_the_counted_positions(model):
    with torch.no_grad():
        everywhere = model(IDS, MASK).logits
        with head_sees_only(model, COUNTED):
            some = model(IDS, MASK).logits
        assert torch.equal(model(IDS, MASK).logits, everywhere)
    assert some.shape == (3, model.config.vocab_size)
    torch.testing.assert_close(some, everywhere[COUNTED])


def test_the_head_sees_everything_again_after_an_error(model):
    with pytest.raises(ValueError, match="stop"), head_sees_only(model, COUNTED):
        raise ValueError("stop")
    assert model(IDS, MASK).logits.shape == (2, 5, model.config.vocab_size)


# Folders


def test_a_folder_without_a_head_gets_a_new_one(encoder, tiny_teacher_folder):
    assert not has_mlm_head(tiny_teacher_folder)
    model, expected = load_masked_lm(tiny_teacher_folder), add_mlm_head(encoder).state_dict()
    assert all(torch.equal(model.state_dict()[name], expected[name]) for name in expected)
    assert not model.training


def test_a_folder_with_a_head_keeps_it(model, tmp_path):
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert has_mlm_head(tmp_path)
    again = load_masked_lm(tmp_path)
    assert again.dtype == torch.float32
    assert not again.training
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight.float()), name
    assert again.cls.predictions.decoder.weight is again.get_parameter(WORDS)


def test_a_file_like_that_of_bert_base_uncased(model, tmp_path):
    """Norms called gamma and beta, a pooler and a next-sentence head, the decoder not repeated."""
    model.save_pretrained(tmp_path)
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight.clone()
        for name, weight in model.state_dict().items()
        if "decoder" not in name
    }
    weights |= {"bert.pooler.dense.weight": torch.zeros(32, 32), "bert.pooler.dense.bias": IDS}
    weights |= {"cls.seq_relationship.weight": torch.zeros(2, 32)}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert has_mlm_head(tmp_path)
    again = load_masked_lm(tmp_path).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in model.state_dict().items())


def saved(model, folder: Path, **changes: torch.Tensor | None) -> Path:
    """The model's folder, in which some weights have another value, or none at all."""
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors") | changes
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("value", [None, torch.zeros(3, 3)])
@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.2.output.dense.weight",
        "cls.predictions.transform.LayerNorm.bias",
        WORDS,
    ],
)
def test_weights_that_do_not_fit_are_named(model, tmp_path, name, value):
    with pytest.raises(ModelError, match=f"do not fit the configuration: .*{name}"):
        load_masked_lm(saved(model, tmp_path, **{name: value}))


def test_another_family_is_named(tmp_path):
    DistilBertModel(DistilBertConfig(n_layers=1, dim=24, n_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a distilbert, not a BERT"):
        load_masked_lm(tmp_path)


def test_files_that_are_missing_or_torn(model, tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_masked_lm(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        has_mlm_head(tmp_path)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ModelError, match="cannot be read"):
        load_masked_lm(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": "wide"}))
    with pytest.raises(ModelError, match="cannot be read"):
        load_masked_lm(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"})[:-3])
    with pytest.raises(ModelError, match="cannot be read"):
        load_masked_lm(tmp_path)


# Guesses


def test_guesses_are_the_largest_probabilities_at_each_mask(model, tokenizer):
    text = "The [MASK] holds the [MASK]."
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probs = model(ids).logits[0].softmax(-1)
    where = [i for i, token in enumerate(ids[0].tolist()) if token == tokenizer.mask_token_id]
    guesses = top_guesses(model, tokenizer, text, k=7)
    assert len(guesses) == len(where) == 2
    for place, words in zip(where, guesses, strict=True):
        order = sorted(range(len(tokenizer)), key=lambda i: -probs[place, i])[:7]
        assert [word for word, _ in words] == tokenizer.convert_ids_to_tokens(order)
        assert [p for _, p in words] == pytest.approx(probs[place, order].tolist(), rel=1e-4)
    assert guesses[0] != guesses[1]
    assert len(top_guesses(model, tokenizer, text)[0]) == 5


def test_every_word_can_be_asked_for_and_nothing_else(encoder, tokenizer):
    n = len(tokenizer)
    changes = {"vocab_size": n + 3}  # rows without a word
    model = add_mlm_head(BertModel(BertConfig.from_dict(encoder.config.to_dict() | changes)))
    model.cls.predictions.bias.data[n:] = 5.0
    (guesses,) = top_guesses(model, tokenizer, "[MASK]", k=n)
    assert {word for word, _ in guesses} == set(tokenizer.get_vocab())
    assert sum(p for _, p in guesses) < 0.9
    for k in (0, -1, n + 1):
        with pytest.raises(DataError, match=f"1 to {n}"):
            top_guesses(model, tokenizer, "[MASK]", k=k)


@pytest.mark.parametrize("training", [True, False])
def test_guessing_leaves_no_trace(model, tokenizer, training):
    model.train(training)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    first, again = (top_guesses(model, tokenizer, "The [MASK].") for _ in range(2))
    assert first == again  # no dropout
    assert model.training == training
    assert all(torch.equal(weight, before[n]) for n, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("text", ["the sum", "", "the [mask]", "the [ MASK ]", None, ["[MASK]"]])
def test_a_text_without_a_mask(model, tokenizer, text):
    with pytest.raises(DataError, match=r"no \[MASK\] in"):
        top_guesses(model, tokenizer, text)


def test_a_text_that_is_too_long(model, tokenizer):
    with pytest.raises(DataError, match="has 65 tokens; the model reads 64"):
        top_guesses(model, tokenizer, "the " * 62 + "[MASK]")
    assert len(top_guesses(model, tokenizer, "the " * 61 + "[MASK]")) == 1


def test_a_tokenizer_of_another_model(model, tokenizer, tiny_teacher_folder):
    small = add_mlm_head(
        BertModel(BertConfig.from_dict(model.config.to_dict() | {"vocab_size": 20}))
    )
    with pytest.raises(ModelError, match="the model knows 20"):
        top_guesses(small, tokenizer, "[MASK]")
    other = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    other.mask_token = None
    with pytest.raises(ModelError, match="mask token None"):
        top_guesses(model, other, "[MASK]")


@pytest.mark.weights
def test_the_real_weights():
    folder = find_model(say=str).path
    assert not has_mlm_head(folder)
    model = load_masked_lm(folder)
    assert model.num_parameters() == 22_713_216 - 147_840 + 179_130  # pooler out, head in
    file = load_file(folder / "model.safetensors")
    assert torch.equal(model.get_parameter(WORDS), file["embeddings.word_embeddings.weight"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (guesses,) = top_guesses(model, tokenizer, "Returns the [MASK].")
    assert all(0 < p < 0.1 for _, p in guesses)  # it knows nothing yet
