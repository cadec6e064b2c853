"""Trimmed models compute what they did; their tokenizers split what is left out, and are saved."""

from __future__ import annotations

import copy
import hashlib
import warnings

import pytest
import torch
from tiny import TEXTS, write_classifier
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from course_utils.compress import vocabulary
from course_utils.compress.vocabulary import (
    cut_positions,
    tokens_to_keep,
    tokens_to_keep_for_new_texts,
    trim_vocabulary,
)
from course_utils.data.sources import find_model
from course_utils.errors import DataError, ModelError
from course_utils.models.classifier import TorchClassifier
from course_utils.models.mlm import add_mlm_head
from course_utils.ship.onnx import to_onnx
from course_utils.ship.runtime import OnnxClassifier

SEEN = TEXTS[:5]
TABLE = "bert.embeddings.word_embeddings.weight"
ODD = [
    "",
    "quixotic matrices",
    "[MASK] of [SEP] the",
    "THE Tensör",
    "日本 😀 ☃",
    "the[MASK]the",
    "\x00a",
]


@pytest.fixture(scope="module")
def model(tiny_teacher_folder):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder)
    return copy.deepcopy(model.eval())  # whose weights lie in memory as a new model's: same bits


@pytest.fixture
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def like_bert(tokenizer):
    """A `BertTokenizer` with the same words, in which the special tokens are not the first ones."""
    tokens = sorted(tokenizer.get_vocab())
    tokens.insert(3, "[unused0]")
    return BertTokenizer({token: i for i, token in enumerate(tokens)}, model_max_length=64)


def ids_of(tokenizer, texts):
    return tokenizer(list(texts), return_attention_mask=False)["input_ids"]


def trimmed(model, tokenizer, texts=SEEN, **options):
    keep = tokens_to_keep(tokenizer, ids_of(tokenizer, texts), **{"at_least": 0} | options)
    return trim_vocabulary(model, tokenizer, keep)


def state(model) -> str:
    digest = hashlib.sha256(repr(model.config.to_dict()).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def fits(model, rows: int):
    """The model with a table of that many rows: the first ones, or new ones behind."""
    model = copy.deepcopy(model)
    model.resize_token_embeddings(rows, mean_resizing=False)
    return model.eval()


# Which tokens


def test_specials_characters_and_what_occurs_are_kept_and_no_more(like_bert):
    keep = tokens_to_keep(like_bert, ids_of(like_bert, SEEN), at_least=0)
    tokens = like_bert.convert_ids_to_tokens(keep)
    vocabulary = like_bert.get_vocab()
    expected = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    expected |= {t for t in vocabulary if len(t) == 1 or (len(t) == 3 and t.startswith("##"))}
    expected |= {token for text in SEEN for token in like_bert.tokenize(text)}
    assert keep == sorted(keep)
    assert set(tokens) == expected
    assert len(tokens) < len(vocabulary) - 1


def test_the_first_tokens_join_until_there_are_enough_but_no_placeholder(like_bert):
    least = tokens_to_keep(like_bert, [], at_least=0)
    more = tokens_to_keep(like_bert, [], at_least=len(least) + 4)
    others = [i for i in range(len(like_bert)) if i not in least]
    joined = [i for i in others if like_bert.convert_ids_to_tokens(i) != "[unused0]"][:4]
    assert sorted({*more} - {*least}) == joined
    everything = tokens_to_keep(like_bert, [], at_least=10**6)
    assert like_bert.convert_tokens_to_ids("[unused0]") not in everything
    assert len(everything) == len(like_bert) - 1


def test_the_rarest_go_first_when_there_are_too_many(tokenizer):
    always = tokens_to_keep(tokenizer, [], at_least=0)
    rare, common, *_ = (i for i in range(len(tokenizer)) if i not in always)
    least, texts = len(always), [[rare], [common, common]]
    keep = tokens_to_keep(tokenizer, texts, at_least=10**6, at_most=least + 1)
    assert common in keep
    assert rare not in keep
    assert len(keep) == least + 1
    assert len(tokens_to_keep(tokenizer, texts, at_most=3)) == least  # no character is given up


def test_an_id_that_is_no_token_is_refused(tokenizer):
    with pytest.raises(DataError, match="-100"):
        tokens_to_keep(tokenizer, [[3, -100]])


@pytest.mark.parametrize("amount", [{"at_least": "5"}, {"at_least": None}, {"at_most": 2.5}])
def test_a_number_of_tokens_that_is_none_is_refused(tokenizer, amount):
    with pytest.raises(DataError, match="whole numbers"):
        tokens_to_keep(tokenizer, [], **amount)


# The model


def test_logits_of_kept_tokens_are_equal_to_the_last_bit(model, tokenizer):
    before = state(model), tokenizer.get_vocab()
    small = trimmed(model, tokenizer)
    assert len(small.tokenizer) < len(tokenizer)
    for text in SEEN:
        old, new = ids_of(tokenizer, [text])[0], ids_of(small.tokenizer, [text])[0]
        assert new == small.new_ids[old].tolist()
        expected = model(torch.tensor([old])).logits
        assert torch.equal(small.model(torch.tensor([new])).logits, expected)
    assert (state(model), tokenizer.get_vocab()) == before


def test_everything_but_the_table_is_a_copy_of_its_own(model, tokenizer):
    keep = tokens_to_keep(tokenizer, ids_of(tokenizer, SEEN), at_least=0)
    small = trim_vocabulary(model, tokenizer, reversed(keep))  # the order says nothing
    ours, theirs = small.model.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name][keep] if name == TABLE else theirs[name])
        assert tensor.data_ptr() != theirs[name].data_ptr()
    assert type(small.model) is type(model)
    assert small.model.config.id2label == model.config.id2label


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_data_type_stay_and_no_dice_are_thrown(model, tokenizer, training):
    half = copy.deepcopy(model).to(torch.bfloat16).train(training)
    dice = torch.get_rng_state()
    small = trimmed(half, tokenizer).model
    assert torch.equal(torch.get_rng_state(), dice)
    assert small.training is training
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}


def test_tokens_left_out_become_unknown(model, tokenizer):
    small = trimmed(model, tokenizer)
    assert small.new_ids.shape == (model.config.vocab_size,)
    kept = set(small.tokenizer.get_vocab())
    for token, i in tokenizer.get_vocab().items():
        expected = small.tokenizer.convert_tokens_to_ids(token if token in kept else "[UNK]")
        assert small.new_ids[i] == expected


def test_a_tied_head_is_cut_with_its_bias_and_stays_tied(model, tokenizer):
    guesser = add_mlm_head(model)
    torch.nn.init.normal_(guesser.cls.predictions.bias)
    small = trimmed(guesser, tokenizer)
    head = small.model.cls.predictions
    assert head.decoder.weight is small.model.bert.embeddings.word_embeddings.weight
    assert head.decoder.bias is head.bias
    old = torch.tensor(ids_of(tokenizer, SEEN[:1]))
    keep = [i for i in range(len(tokenizer)) if small.new_ids[i] != small.tokenizer.unk_token_id]
    keep = sorted([*keep, tokenizer.unk_token_id])
    logits = small.model(small.new_ids[old]).logits
    torch.testing.assert_close(logits, guesser(old).logits[..., keep], rtol=1e-5, atol=1e-5)


def test_a_distilbert_is_trimmed_too(tokenizer):
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=120, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    model = DistilBertForSequenceClassification(config).eval()
    small = trimmed(model, tokenizer)
    old = torch.tensor(ids_of(tokenizer, SEEN[:1]))
    torch.testing.assert_close(small.model(small.new_ids[old]).logits, model(old).logits)


# The tokenizer


@pytest.mark.parametrize("kind", ["tokenizer", "like_bert"])
def test_saved_and_loaded_it_is_the_same_for_everyone(request, kind, model, tmp_path):
    tokenizer = request.getfixturevalue(kind)
    model = fits(model, len(tokenizer))
    small = trimmed(model, tokenizer)
    small.model.save_pretrained(tmp_path)
    small.tokenizer.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*TEXTS, *ODD]:
        ids = small.tokenizer(text)["input_ids"]
        assert reloaded(text)["input_ids"] == ids
        assert alone.encode(text).ids == ids
        assert small.tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
    for made in (small.tokenizer, reloaded):
        assert made.vocab_size == len(made) == small.model.config.vocab_size
        assert sorted(made.get_vocab().values()) == list(range(len(made)))
        assert made.special_tokens_map == tokenizer.special_tokens_map
        assert made.model_max_length == 64
        assert made.mask_token_id == small.new_ids[tokenizer.mask_token_id]
        assert made.decode(made.mask_token_id) == "[MASK]"
        assert made("the", "array")["input_ids"].count(made.sep_token_id) == 2
    assert type(small.tokenizer) is type(tokenizer)
    both = TorchClassifier(tmp_path), TorchClassifier.of(small.model, small.tokenizer, name="it")
    logits = [torch.tensor(c.predict(TEXTS)) for c in both]
    torch.testing.assert_close(*logits)


def test_a_word_left_out_is_split_and_what_was_unknown_stays_so(model, tokenizer):
    small = trimmed(model, tokenizer, texts=[""])
    for text in [*TEXTS, *ODD]:
        now, before = small.tokenizer.tokenize(text), tokenizer.tokenize(text)
        assert now.count("[UNK]") == before.count("[UNK]")
        assert "".join(now).replace("##", "") == "".join(before).replace("##", "")
        assert len(now) >= len(before)


def test_padding_has_its_new_id_in_both(model, like_bert):
    model = fits(model, len(like_bert))
    model.config.pad_token_id = like_bert.pad_token_id
    like_bert(SEEN, padding=True)  # leaves its mark in the tokenizer
    small = trimmed(model, like_bert)
    pad = small.tokenizer.convert_tokens_to_ids("[PAD]")
    assert pad != like_bert.pad_token_id
    assert small.model.config.pad_token_id == small.tokenizer.pad_token_id == pad
    assert small.model.get_input_embeddings().padding_idx == pad
    ids = small.tokenizer(["the", SEEN[0]], padding=True)["input_ids"]
    assert ids[0][-1] == pad


def test_added_tokens_are_kept_at_the_end_and_found_in_a_text(model, tokenizer, tmp_path):
    tokenizer.add_tokens(["<url>", "tensor-core"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<turn>"]})
    model = fits(model, len(tokenizer))
    small = trimmed(model, tokenizer)
    text = "the <url> tensor-core<turn>"
    tokens = small.tokenizer.tokenize(text)
    assert tokens == ["the", "<url>", "tensor-core", "<turn>"]
    new, old = ids_of(small.tokenizer, [text])[0], ids_of(tokenizer, [text])[0]
    assert new == small.new_ids[old].tolist()
    assert len(small.tokenizer) == small.model.config.vocab_size
    assert small.tokenizer.all_special_tokens == tokenizer.all_special_tokens
    small.tokenizer.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    assert reloaded.tokenize(text) == tokens
    assert reloaded.all_special_tokens == tokenizer.all_special_tokens


# Refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda keep, _: [*keep, keep[-1]], "twice"),
        (lambda keep, _: [*keep, 10**6], "no token with the id 1000000"),
        (lambda keep, _: [-1, *keep], "no token with the id -1"),
        (lambda keep, _: [*keep, "the"], "no token with the id 'the'"),
        (lambda keep, t: [i for i in keep if i != t.mask_token_id], r"lost: \[MASK\]"),
        (lambda keep, _: [], "would be lost"),
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(model, tokenizer, change, words):
    keep = tokens_to_keep(tokenizer, ids_of(tokenizer, SEEN), at_least=0)
    with pytest.raises(ModelError, match=words):
        trim_vocabulary(model, tokenizer, change(keep, tokenizer))


def test_another_kind_of_tokenizer_is_refused(model):
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), unk_token="[UNK]")
    for call in (lambda: tokens_to_keep(other, []), lambda: trim_vocabulary(model, other, [0])):
        with pytest.raises(ModelError, match="BPE cannot be trimmed"):
            call()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(model, tokenizer):
    tokenizer.add_tokens([f"<{k}>" for k in range(200)])
    with pytest.raises(ModelError, match="model rows for 120"):
        trim_vocabulary(model, tokenizer, [])


def pruned_by_hand(model):
    """A copy in which two heads of a layer are gone, and the configuration does not know."""
    model = copy.deepcopy(model)
    attention = model.bert.encoder.layer[0].attention
    for linear in (attention.self.query, attention.self.key, attention.self.value):
        linear.weight = torch.nn.Parameter(linear.weight[:16])
        linear.bias = torch.nn.Parameter(linear.bias[:16])
    attention.output.dense.weight = torch.nn.Parameter(attention.output.dense.weight[:, :16])
    return model


def quantized_by_torch(model):
    ao = pytest.importorskip("torch.ao.quantization")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return ao.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (pruned_by_hand, r"layer\.0\.attention\.self\.query"),
        (quantized_by_torch, "layer.0.attention"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(model, tokenizer, change, where):
    changed = change(model)
    before = {k: v.clone() for k, v in changed.state_dict().items() if torch.is_tensor(v)}
    for call in (lambda: trimmed(changed, tokenizer), lambda: cut_positions(changed, 24)):
        with pytest.raises(ModelError, match=rf"do not fit its configuration: look at .*{where}"):
            call()
    after = changed.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


# Positions


def test_positions_are_cut_and_short_texts_get_the_same_bits(model, tokenizer, tmp_path):
    before = state(model)
    short = cut_positions(model, 24)
    assert short.config.max_position_embeddings == 24
    ids = torch.tensor(ids_of(tokenizer, SEEN[:1]))
    assert torch.equal(short(ids).logits, model(ids).logits)
    longest = torch.randint(5, 100, (2, 24), generator=torch.Generator().manual_seed(0))
    assert torch.equal(short(longest).logits, model(longest).logits)
    short.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert TorchClassifier(tmp_path).encode(["the " * 100])["input_ids"].shape == (1, 24)
    assert state(model) == before


@pytest.mark.parametrize("positions", [0, -1, 65, 8.5, "8", None, True])
def test_positions_that_the_model_has_not_are_refused(model, positions):
    with pytest.raises(ModelError, match="64 positions"):
        cut_positions(model, positions)


# Shipped


def test_a_trimmed_model_is_shipped_as_any_other(tmp_path):
    folder = write_classifier(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    small = trimmed(model, AutoTokenizer.from_pretrained(folder))
    cut_positions(small.model, 32).save_pretrained(folder)
    small.tokenizer.save_pretrained(folder)
    to_onnx(folder, tmp_path / "onnx", int8=False)
    ours, theirs = OnnxClassifier(tmp_path / "onnx"), TorchClassifier(folder)
    texts = [*TEXTS, *ODD, "the " * 99]
    assert ours.token_ids(texts) == theirs.token_ids(texts)
    difference = torch.tensor(ours.predict(texts)) - torch.tensor(theirs.predict(texts))
    assert difference.abs().max() < 1e-4


@pytest.mark.weights
def test_minilm_keeps_its_classes_with_a_quarter_of_its_vocabulary():
    folder = find_model(say=lambda _: None).path
    model = copy.deepcopy(AutoModelForSequenceClassification.from_pretrained(folder).eval())
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=128)
    small = trimmed(model, tokenizer, at_least=8192)
    assert small.model.config.vocab_size == 8192
    assert not any(token.startswith("[unused") for token in small.tokenizer.get_vocab())
    ids = ids_of(tokenizer, SEEN[:1])
    assert ids_of(small.tokenizer, SEEN[:1]) == small.new_ids[torch.tensor(ids)].tolist()
    expected = model(torch.tensor(ids)).logits
    assert torch.equal(small.model(small.new_ids[torch.tensor(ids)]).logits, expected)
    words = ["unbelievable", "Ünïcode", "zyzzyva", "antidisestablishmentarianism", "日本"]
    assert "[UNK]" not in small.tokenizer.tokenize(" ".join(words))


@pytest.mark.weights
def test_new_texts_decide_how_many_frequent_tokens_are_kept():
    tokenizer = AutoTokenizer.from_pretrained(find_model(say=lambda _: None).path)
    seen, common, rare = (
        tokenizer([text])["input_ids"]
        for text in ("the house was old", "we were there with them", "quokkas outshine narwhals")
    )
    few = tokens_to_keep(tokenizer, seen, at_least=vocabulary.AT_LEAST)
    assert tokens_to_keep_for_new_texts(tokenizer, seen, common) == few
    many = tokens_to_keep_for_new_texts(tokenizer, seen, rare)
    assert set(few) < set(many)
    assert set(rare[0]) <= set(many)
    assert set(seen[0]) <= set(many)


def test_without_a_new_text_the_few_are_kept(like_bert):
    assert tokens_to_keep_for_new_texts(like_bert, [[5]], []) == list(range(len(like_bert)))
