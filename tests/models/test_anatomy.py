"""Counts against models that exist: known totals, real weights, torch's own counter."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
    T5Config,
)

from course_utils.data.sources import find_model
from course_utils.errors import ModelError
from course_utils.models.anatomy import (
    ARITHMETIC,
    PARTS,
    compare,
    count,
    flops,
    skeleton,
    well_known,
)
from course_utils.models.compact_bert import CompactBertConfig

BERT = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}
TINY = {
    "bert": BertConfig(**BERT),
    "distilbert": DistilBertConfig(
        vocab_size=90, dim=24, n_layers=3, n_heads=4, hidden_dim=40, max_position_embeddings=32
    ),
    "electra": ElectraConfig(**BERT, embedding_size=16),
    "albert": AlbertConfig(**BERT, embedding_size=16),
}
PRUNED = {"heads_per_layer": [1, 4, 2], "neurons_per_layer": [7, 40, 1]}
RANKS = {"bert.encoder.layer.0.attention.self.key": 3, "bert.encoder.layer.2.output.dense": 1}
COMPACT = {
    "pruned": CompactBertConfig(**BERT, **PRUNED),
    "narrow": CompactBertConfig(**BERT | {"hidden_size": 10}, **PRUNED, head_size=6),
    "factorised": CompactBertConfig(**BERT, **PRUNED, ranks=RANKS, embedding_rank=5),
}
# A pruned model has these heads, but none for tokens.
COMPACT_KINDS = [AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification]
KINDS = [
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
]


# Parameters


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("BERT-large", 335_141_888),
        ("BERT-base", 109_482_240),
        ("DistilBERT", 66_362_880),
        ("MiniLM", 22_713_216),
    ],
)
def test_known_totals(name, total):
    assert sum(count(well_known()[name]).values()) == total


def test_bert_base_part_by_part():
    """From the formulas, with H = 768, 12 layers, I = 3072, 30 522 words, 512 positions."""
    h, layers, inner, words, positions = 768, 12, 3072, 30_522, 512
    expected = {
        "word embeddings": words * h,
        "position embeddings": positions * h,
        "type embeddings": 2 * h,
        "embedding norm": 2 * h,
        "attention": layers * 4 * (h * h + h),
        "feed-forward": layers * (h * inner + inner + inner * h + h),
        "layer norms": layers * 2 * 2 * h,
        "pooler": h * h + h,
        "head": 0,
        "other": 0,
    }
    assert list(expected) == list(PARTS)
    assert count(BertConfig()) == expected
    masked = count(BertConfig(), kind=AutoModelForMaskedLM)
    head = h * h + h + 2 * h + words  # transform, its norm, one bias per word; the decoder is tied
    assert masked == expected | {"pooler": 0, "head": head}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_every_parameter_is_in_one_part(config, kind):
    """The sum is that of a real model; the encoder's parts do not depend on the head."""
    counts = count(config, kind=kind)
    assert tuple(counts) == PARTS
    assert sum(counts.values()) == kind.from_config(config).num_parameters()
    assert (counts["head"] > 0) == (kind is not AutoModel)
    encoder = count(config)
    same = set(PARTS) - {"head", "pooler"}
    assert {part: counts[part] for part in same} == {part: encoder[part] for part in same}
    assert all(counts[p] for p in ("word embeddings", "attention", "feed-forward", "layer norms"))


@pytest.mark.parametrize(
    "config",
    [
        RobertaConfig(**BERT),
        GPT2Config(vocab_size=90, n_positions=32, n_embd=24, n_layer=2, n_head=4),
        T5Config(vocab_size=90, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4),
        ModernBertConfig(**BERT, pad_token_id=0),
    ],
    ids=lambda config: config.model_type,
)
def test_other_families_are_counted_to_the_last(config):
    assert sum(count(config).values()) == AutoModel.from_config(config).num_parameters()


def test_names_of_other_families_are_understood():
    assert count(RobertaConfig(**BERT))["other"] == 0
    gpt = count(GPT2Config(vocab_size=90, n_positions=32, n_embd=24, n_layer=2, n_head=4))
    assert (gpt["word embeddings"], gpt["position embeddings"]) == (90 * 24, 32 * 24)
    assert gpt["other"] == 0


def test_shared_layers_are_counted_once_and_computed_every_time():
    """ALBERT's layers are one layer; what it saves is parameters, not arithmetic."""
    shallow = AlbertConfig(**BERT | {"num_hidden_layers": 1}, embedding_size=16)
    assert count(TINY["albert"]) == count(shallow)
    once, thrice = flops(shallow, 8), flops(TINY["albert"], 8)
    for part in ("attention projections", "attention scores", "feed-forward"):
        assert thrice[part] == 3 * once[part]


@pytest.mark.weights
def test_minilm_as_it_lies_on_the_disk():
    folder = find_model(say=str).path
    config = AutoConfig.from_pretrained(folder)
    assert config.num_attention_heads == well_known()["MiniLM"].num_attention_heads
    assert count(config) == count(well_known()["MiniLM"])
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.position_ids"]  # 0, 1, 2, …: no parameter
    assert sum(count(config).values()) == sum(weight.numel() for weight in weights.values())


def test_the_configuration_stays_as_it_was():
    config = BertConfig(attn_implementation="sdpa")
    before = (config.to_dict(), config._attn_implementation)
    skeleton(config)
    assert (config.to_dict(), config._attn_implementation) == before


def test_the_skeleton_holds_nothing():
    model = skeleton(BertConfig())
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert not model.training
    assert torch.zeros(1).device.type == "cpu"


# Arithmetic


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 7, 32])
@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_operations_are_those_of_a_real_forward(config, length, kind):
    model = kind.from_config(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randint(5, 90, (1, length)))
    spent = flops(config, length, kind=kind)
    assert tuple(spent) == ARITHMETIC
    assert sum(spent.values()) == counter.get_total_flops()


@pytest.mark.parametrize("length", [1, 128, 512])
def test_operations_of_bert_base_by_formula(length):
    assert flops(BertConfig(), length) == {
        "embeddings": 0,
        "attention projections": 12 * 4 * 2 * 768 * 768 * length,
        "attention scores": 12 * 2 * 2 * 768 * length**2,
        "feed-forward": 12 * 2 * 2 * 768 * 3072 * length,
        "pooler": 2 * 768 * 768,
        "head": 0,
        "other": 0,
    }


def test_the_masked_language_head_is_computed_though_it_is_tied():
    spent = flops(TINY["bert"], 10, kind=AutoModelForMaskedLM)
    assert spent["head"] == 10 * 2 * (24 * 24 + 24 * 90)


def test_heads_do_not_change_the_arithmetic():
    one = BertConfig(**BERT | {"num_attention_heads": 1})
    assert flops(one, 9) == flops(TINY["bert"], 9)


# Pruned and factorised


@pytest.mark.parametrize("kind", COMPACT_KINDS)
@pytest.mark.parametrize("config", COMPACT.values(), ids=COMPACT)
def test_every_parameter_and_operation_of_a_compact_model(config, kind):
    """Against the model that is built, and against torch's counter on it."""
    model = kind.from_config(config, attn_implementation="eager").eval()
    counts, spent = count(config, kind=kind), flops(config, 7, kind=kind)
    assert sum(counts.values()) == model.num_parameters()
    assert counts["other"] == spent["other"] == 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randint(5, 90, (1, 7)))
    assert tuple(spent) == ARITHMETIC
    assert sum(spent.values()) == counter.get_total_flops()


def test_a_compact_model_of_which_nothing_is_gone_counts_as_before():
    config = CompactBertConfig(**BERT)
    assert count(config) == count(TINY["bert"])
    assert flops(config, 9) == flops(TINY["bert"], 9)


def test_operations_of_a_pruned_model_by_formula():
    """Hidden size 24, heads of 6 coordinates: 1, 4 and 2 of them; 7, 40 and 1 neurons."""
    heads, neurons, length = 1 + 4 + 2, 7 + 40 + 1, 5
    spent = flops(COMPACT["pruned"], length)
    assert spent["attention projections"] == 2 * 4 * 24 * 6 * heads * length
    assert spent["attention scores"] == 2 * 2 * 6 * heads * length**2
    assert spent["feed-forward"] == 2 * 2 * 24 * neurons * length
    assert spent["embeddings"] == 0


def test_factorised_embeddings_are_no_longer_free():
    counts = count(COMPACT["factorised"])
    assert counts["word embeddings"] == 5 * (90 + 24)
    assert flops(COMPACT["factorised"], 8)["embeddings"] == 2 * 5 * 24 * 8


# Rows


def test_rows_for_a_table():
    rows = compare({"a": TINY["bert"], "b": TINY["distilbert"]})
    assert [row["model"] for row in rows] == ["a"] * 8 + ["b"] * 8  # neither has a head or others
    assert {row["part"] for row in rows} == set(PARTS) - {"head", "other"}
    for name, key in (("a", "bert"), ("b", "distilbert")):
        mine = {row["part"]: row for row in rows if row["model"] == name}
        total = sum(count(TINY[key]).values())
        assert {p: row["amount"] for p, row in mine.items()} == {
            p: n for p, n in count(TINY[key]).items() if p in mine
        }
        assert all(row["share"] == row["amount"] / total for row in mine.values())
    assert {r["part"]: r["amount"] for r in rows if r["model"] == "b"}["type embeddings"] == 0


def test_rows_of_operations():
    rows = compare({"tiny": TINY["bert"]}, lambda config: flops(config, 5))
    spent = flops(TINY["bert"], 5)
    assert {row["part"]: row["amount"] for row in rows} == {p: n for p, n in spent.items() if n}
    assert sum(row["share"] for row in rows) == pytest.approx(1)


# Refused


@pytest.mark.parametrize("junk", ["bert-base-uncased", None, {"hidden_size": 24}])
@pytest.mark.parametrize("call", [skeleton, count, lambda config: flops(config, 8)])
def test_what_is_no_configuration(call, junk):
    with pytest.raises(ModelError, match=f"A {type(junk).__name__} where a configuration"):
        call(junk)


def test_sizes_that_make_no_model():
    with pytest.raises(ModelError, match=r"built of this BertConfig: .*multiple of the number of"):
        count(BertConfig(hidden_size=30, num_attention_heads=4))
    with pytest.raises(ModelError, match="built of this GPT2Config"):
        count(GPT2Config(), kind=AutoModelForMaskedLM)


@pytest.mark.parametrize("length", [0, -1, 33, 2.5])
def test_a_length_without_positions(length):
    with pytest.raises(ModelError, match=rf"text of {length} tokens (?s:.*) 1 to 32"):
        flops(TINY["bert"], length)


def test_a_family_that_is_not_counted():
    with pytest.raises(ModelError, match="family gpt2 are not counted"):
        flops(GPT2Config(n_embd=24, n_layer=1, n_head=4), 8)
