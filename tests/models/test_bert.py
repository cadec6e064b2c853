"""MiniBert is transformers' BERT: every layer, every attention map, every gradient."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertModel

from course_utils.data.sources import find_model
from course_utils.errors import DataError, ModelError
from course_utils.models import bert
from course_utils.models.bert import MiniBert, MiniBertOutput, our_name

WITHIN = {"rtol": 0, "atol": 1e-5}
TEXTS = [  # short beside long: most rows are padded
    "The gradient flows back through every layer of the network.",
    "No.",
    "Naïve café owners paid 3,141.59 € for 12 GPUs!? 🙂 数学",
    "A student learns from its teacher, and a student of that student learns a little less, which "
    "is why we measure what each of them still knows before we make the next one any smaller.",
]
PAIRS = [
    ("Where does the bracket close?", "After the seventh word."),
    ("Who wrote this?", "Nobody knows, and nobody has asked until today."),
]


def theirs_at(folder: Path) -> BertModel:
    """The reference: attention as it is written down in the paper, in float32."""
    return BertModel.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()


def batch_of(folder: Path, *texts) -> dict[str, torch.Tensor]:
    batch = dict(AutoTokenizer.from_pretrained(folder)(*texts, padding=True, return_tensors="pt"))
    batch.setdefault("token_type_ids", torch.zeros_like(batch["input_ids"]))
    return batch


def assert_equal_everywhere(ours: MiniBert, theirs: BertModel, batch: dict) -> MiniBertOutput:
    with torch.no_grad():
        found = ours(**batch)
        expected = theirs(**batch, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(found.hidden_states, expected.hidden_states, **WITHIN)
    torch.testing.assert_close(found.attentions, expected.attentions, **WITHIN)
    torch.testing.assert_close(found.pooled, expected.pooler_output, **WITHIN)
    assert len(found.hidden_states) == theirs.config.num_hidden_layers + 1
    return found


@pytest.fixture(scope="module")
def tiny(tiny_teacher_folder) -> MiniBert:
    return MiniBert.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def theirs(tiny_teacher_folder) -> BertModel:
    return theirs_at(tiny_teacher_folder)


@pytest.fixture
def copy(tiny_teacher_folder, tmp_path) -> Path:
    return shutil.copytree(tiny_teacher_folder, tmp_path / "copy")


@pytest.fixture
def batch(tiny_teacher_folder) -> dict[str, torch.Tensor]:
    """Three texts of different lengths, with tokens of both types."""
    texts = ["the array", "a tensor moves to the device and plots every row", "the"]
    made = batch_of(tiny_teacher_folder, texts)
    made["token_type_ids"] = (made["input_ids"] % 3 == 0).long()
    assert (made["attention_mask"] == 0).any()
    assert made["token_type_ids"].any()
    return made


# Equal to transformers


def test_the_tiny_model_equals_transformers(tiny, theirs, batch):
    found = assert_equal_everywhere(tiny, theirs, batch)
    padding = batch["attention_mask"] == 0
    for weights in found.attentions:
        assert (weights.transpose(1, 3)[padding] == 0).all()  # nobody looks at padding
    assert_equal_everywhere(tiny, theirs, {"input_ids": batch["input_ids"]})
    assert_equal_everywhere(tiny, theirs, batch | {"attention_mask": padding.logical_not()})


def test_token_types_are_used_and_are_zero_if_left_out(tiny, batch):
    types = batch.pop("token_type_ids")
    without = tiny(**batch).pooled
    assert torch.equal(without, tiny(**batch, token_type_ids=torch.zeros_like(types)).pooled)
    assert not torch.allclose(without, tiny(**batch, token_type_ids=types).pooled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_equal_those_of_transformers(tiny_teacher_folder, theirs, batch, dtype):
    """In float64, too, where an epsilon in the wrong place could not hide in the rounding."""
    ours, theirs = MiniBert.from_pretrained(tiny_teacher_folder).to(dtype), theirs.to(dtype)
    found = ours(**batch)
    expected = theirs(**batch, output_hidden_states=True, output_attentions=True)
    weighed = [
        (found.hidden_states, expected.hidden_states),
        (found.attentions, expected.attentions),
        ([found.pooled], [expected.pooler_output]),
    ]
    for seed, pairs in enumerate(weighed):
        for one, other in zip(*pairs, strict=True):
            torch.manual_seed(seed)
            weight = torch.randn_like(one) / one.numel()
            for tensor in (one, other):
                (tensor * weight).sum().backward(retain_graph=True)
    within = WITHIN if dtype == torch.float32 else {"rtol": 0, "atol": 1e-12}
    gradients = {our_name(name): p.grad for name, p in theirs.named_parameters()}
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], **within)
        # The softmax does not see a constant that all scores of a row share: a key's bias.
        assert parameter.grad.any() or name.endswith("key.bias")


def test_training_with_dropout_equals_transformers(tiny_teacher_folder, theirs, batch):
    """Both roll the same dice in the same order, so a dropout at another place would be seen."""
    config = BertConfig.from_pretrained(tiny_teacher_folder, attention_probs_dropout_prob=0.4)
    config._attn_implementation = "eager"
    other = BertModel(config).train()
    other.load_state_dict(theirs.state_dict())
    ours = MiniBert.from_weights(config, theirs.state_dict()).train()
    torch.manual_seed(0)
    found = ours(**batch)
    torch.manual_seed(0)
    expected = other(**batch, output_hidden_states=True)
    torch.testing.assert_close(found.hidden_states, expected.hidden_states, **WITHIN)
    assert not torch.allclose(found.pooled, ours.eval()(**batch).pooled, atol=1e-3)


@pytest.mark.weights
@pytest.mark.parametrize("texts", [(TEXTS,), tuple(zip(*PAIRS, strict=True))], ids=["one", "pairs"])
def test_real_weights_on_real_text_equal_transformers(texts):
    folder = find_model(say=lambda line: None).path
    batch = batch_of(folder, *map(list, texts))
    assert (batch["attention_mask"] == 0).any()
    assert batch["token_type_ids"].any() == (len(texts) == 2)
    ours = MiniBert.from_pretrained(folder)
    assert ours.ignored == ()
    assert_equal_everywhere(ours, theirs_at(folder), batch)


def test_the_size_of_bert_base_equals_transformers():
    torch.manual_seed(0)
    config = BertConfig()
    theirs = BertModel._from_config(config, attn_implementation="eager").eval()
    ours = MiniBert.from_weights(config, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == 109_482_240
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, 9:] = 0
    ids = torch.randint(config.vocab_size, (2, 16))
    types = (torch.arange(16) > 5).long().expand(2, 16)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    assert_equal_everywhere(ours, theirs, batch)


def test_a_text_of_padding_alone_gives_numbers(tiny, batch):
    batch["attention_mask"][1] = 0
    found = tiny(**batch)
    assert all(states.isfinite().all() for states in found.hidden_states)
    assert all((weights[1] == 0).all() for weights in found.attentions)
    assert found.pooled.isfinite().all()


# Files that transformers writes


@pytest.mark.parametrize(
    ("kind", "head", "pools"),
    [
        ("BertModel", "", True),
        ("BertForSequenceClassification", "classifier.", True),
        ("BertForMaskedLM", "cls.", False),
        ("BertForPreTraining", "cls.", True),
        ("BertForTokenClassification", "classifier.", False),
        ("BertForQuestionAnswering", "qa_outputs.", False),
    ],
)
def test_every_kind_of_bert_file_is_read(tiny_teacher_folder, tmp_path, batch, kind, head, pools):
    config = AutoConfig.from_pretrained(tiny_teacher_folder, attn_implementation="eager")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(tmp_path)
    ours = MiniBert.from_pretrained(tmp_path)
    body = model.base_model
    with torch.no_grad():
        found, expected = ours(**batch), body(**batch)
    torch.testing.assert_close(found.hidden_states[-1], expected.last_hidden_state, **WITHIN)
    assert (found.pooled is None) == (not pools)
    if pools:
        torch.testing.assert_close(found.pooled, expected.pooler_output, **WITHIN)
    heads = [name for name in load_file(tmp_path / "model.safetensors") if name[:5] != "bert."]
    assert sorted(ours.ignored) == sorted(heads if head else [])
    assert all(name.startswith(head) for name in ours.ignored)
    assert bool(ours.ignored) == bool(head)


def test_old_names_and_half_precision_are_read(copy, tiny):
    file = copy / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight.half()
        for name, weight in load_file(file).items()
    }
    assert any(name.endswith("gamma") for name in old)
    old["bert.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(old, file)
    read = MiniBert.from_pretrained(copy)
    for name, weight in read.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, tiny.state_dict()[name].half().float())


def test_a_loaded_model_owns_its_weights_and_can_be_trained(theirs):
    weights = theirs.state_dict()
    ours = MiniBert.from_weights(theirs.config, weights)
    assert not ours.training
    assert all(parameter.requires_grad for parameter in ours.parameters())
    before = {name: weight.clone() for name, weight in weights.items()}
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert all(torch.equal(weights[name], before[name]) for name in weights)


def test_a_new_model_is_random_and_has_the_same_weights_as_one_that_was_read(tiny):
    new = MiniBert(tiny.config)
    assert {n: w.shape for n, w in new.state_dict().items()} == {
        n: w.shape for n, w in tiny.state_dict().items()
    }
    assert new.ignored == ()
    assert isinstance(new.pooler, nn.Linear)
    assert MiniBert(tiny.config, pooler=False).pooler is None


def test_the_module_is_short_enough_to_be_read():
    assert len(Path(bert.__file__).read_text(encoding="utf-8").splitlines()) < 150


# Compiled and exported


def test_it_compiles_into_one_graph(tiny, batch):
    compiled = torch.compile(tiny, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch), tiny(**batch), **WITHIN)


def test_it_compiles_into_one_graph_for_any_shape(tiny, batch):
    compiled = torch.compile(tiny, backend="eager", fullgraph=True, dynamic=True)
    for stop in (9, 7, 5):
        some = {name: ids[:, :stop] for name, ids in batch.items()}
        torch.testing.assert_close(compiled(**some), tiny(**some), **WITHIN)


def test_it_is_exported_for_any_number_of_texts_and_tokens(tiny, batch):
    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens", max=64)
    shapes = {name: {0: texts, 1: tokens} for name in batch}
    exported = torch.export.export(tiny, (), batch, dynamic_shapes=shapes).module()
    other = {name: ids[:, :7].repeat(3, 1) for name, ids in batch.items()}
    torch.testing.assert_close(exported(**other), tiny(**other), **WITHIN)


# What is refused


def edit(folder: Path, **changes) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as error:
        MiniBert.from_pretrained(folder)
    for word in words:
        assert word in str(error.value)
    assert str(folder) in str(error.value)
    assert error.value.do


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "gpt2", "t5", "albert", "electra"])
def test_a_model_that_is_not_bert_is_refused_by_its_name(copy, kind):
    AutoConfig.for_model(kind).save_pretrained(copy)
    refused(copy, "model_type 'bert'", f"this model has '{kind}'")
    with pytest.raises(ModelError, match=f"this model has '{kind}'"):
        MiniBert(AutoConfig.for_model(kind))


@pytest.mark.parametrize(
    ("name", "value"), [("hidden_act", "gelu_new"), ("hidden_act", "relu"), ("is_decoder", True)]
)
def test_a_bert_of_another_kind_is_refused(copy, name, value):
    refused(edit(copy, **{name: value}), f"{name} ", f"this model has {value!r}")


def test_heads_that_do_not_divide_the_hidden_size_are_refused(tiny):
    config = BertConfig(hidden_size=32, num_attention_heads=5)
    with pytest.raises(ModelError, match="hidden size of 32 cannot be cut into 5 heads"):
        MiniBert(config)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    refused(copy, name, "No such file")


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "No such file")


@pytest.mark.parametrize(
    "text", ["{", "[1]", '"bert"', "null", '{"hidden_size": "wide"}', '{"id2label": [1]}', "\udcff"]
)
def test_a_broken_configuration_is_refused(copy, text):
    (copy / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(copy, "cannot be read")


@pytest.mark.parametrize("size", [0, 5, 5000])
def test_weights_that_are_cut_short_are_refused(copy, size):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(copy, "cannot be read")


def test_missing_and_unexpected_weights_are_listed(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["bert.encoder.layer.2.attention.self.key.bias"]
    weights["bert.encoder.layer.2.adapter.weight"] = torch.zeros(3, 3)
    weights["bert.embeddings.token_type_embeddings.weight"] = torch.zeros(3, 32)
    save_file(weights, copy / "model.safetensors")
    refused(
        copy,
        "encoder.blocks.2.attention.key.bias is missing, expected (32,)",
        "encoder.blocks.2.adapter.weight is (3, 3), expected none",
        "embeddings.types.weight is (3, 32), expected (2, 32)",
    )


def test_at_most_four_weights_are_listed(copy):
    refused(edit(copy, num_hidden_layers=6), "encoder.blocks.4.", "is missing", "and 28 more")
    with pytest.raises(ModelError) as error:
        MiniBert.from_pretrained(copy)
    assert error.value.what.count("missing") == 4


def test_a_head_without_a_body_prefix_is_unexpected(copy):
    weights = load_file(copy / "model.safetensors")
    bare = {name.removeprefix("bert."): weight for name, weight in weights.items()}
    save_file(bare, copy / "model.safetensors")
    refused(copy, "classifier.weight is (3, 32), expected none")


IDS = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
BAD = {
    "a list": ({"input_ids": IDS.tolist()}, "input_ids is a list, expected a tensor"),
    "one text alone": ({"input_ids": IDS[0]}, "input_ids has 1 axes, expected 2"),
    "too long": (
        {"input_ids": IDS.repeat(1, 17)},
        "68 tokens long, the model has positions for 64",
    ),
    "outside": ({"input_ids": IDS + 111}, r"value 120, expected 0 to 119\.\n.*text 1, token 1"),
    "negative": ({"input_ids": IDS - 3}, r"value -1, .*\n.*text 0, token 0"),
    "floats": ({"input_ids": IDS / 2}, "input_ids is of torch.float32"),
    "mask of another length": (
        {"attention_mask": torch.ones(2, 5, dtype=torch.long)},
        "Axis 1 of attention_mask is 5 long, expected 4",
    ),
    "mask of one text": (
        {"attention_mask": torch.ones(1, 4, dtype=torch.long)},
        "Axis 0 of attention_mask is 1 long, expected 2",
    ),
    "mask of floats": (
        {"attention_mask": torch.zeros(2, 4)},
        "attention_mask is of torch.float32",
    ),
    "mask of ids": ({"attention_mask": IDS}, "attention_mask has the value 2, expected 0 to 1"),
    "types of another shape": (
        {"token_type_ids": IDS[:, :2]},
        "Axis 1 of token_type_ids is 2 long, expected 4",
    ),
    "a third type": ({"token_type_ids": IDS}, "token_type_ids has the value 2, expected 0 to 1"),
    "types are floats": ({"token_type_ids": 0.0 * IDS}, "token_type_ids is of torch.float32"),
}


@pytest.mark.parametrize(("given", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_words(tiny, given, words):
    with pytest.raises(DataError, match=words):
        tiny(**{"input_ids": IDS, **given})
