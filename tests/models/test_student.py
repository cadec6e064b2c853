"""A student holds its teacher's weights, layer by layer, and nothing else."""

from __future__ import annotations

import copy
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertLMHeadModel,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from course_utils.errors import ModelError
from course_utils.models.student import (
    layer_map,
    matched_layers,
    plan_student,
    student_from_teacher,
)

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,
}
NAMES = ["numpy", "torch", "pandas"]
LAYER = re.compile(r"\.layer\.(\d+)\.")
INPUTS = {
    "input_ids": torch.tensor([[2, 17, 33, 3], [2, 98, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


def all_different(model: PreTrainedModel) -> PreTrainedModel:
    """The model in eval mode; all weights random, biases and norms too: no two are alike."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


@pytest.fixture
def teacher() -> BertForSequenceClassification:
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
    return all_different(BertForSequenceClassification(BertConfig(**SIZES, **labels)))


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(**INPUTS).logits


# Which layers


def test_known_maps():
    assert layer_map(12, 6) == (0, 2, 4, 7, 9, 11)  # DistilBERT's
    assert layer_map(6, 3) == (0, 2, 5)
    assert layer_map(12, 3) == (0, 6, 11)
    assert layer_map(12, 4) == (0, 4, 7, 11)
    assert layer_map(4, 2) == (0, 3)
    assert layer_map(6, 1) == (0,)


PAIRS = [(n, k) for n in range(1, 25) for k in range(1, n + 1)]


def test_every_map_rises_from_the_first_layer_to_the_last_in_even_steps():
    for n, k in PAIRS:
        layers = layer_map(n, k)
        assert len(layers) == k, (n, k)
        assert layers[0] == 0, (n, k)
        if k > 1:
            assert layers[-1] == n - 1, (n, k)
            gaps = {b - a for a, b in pairwise(layers)}
            assert min(gaps) >= 1, (n, k)
            assert max(gaps) - min(gaps) <= 1, (n, k)
        if k == n:
            assert layers == tuple(range(n))


def test_known_matches():
    assert matched_layers(12, 6) == (2, 4, 6, 8, 10, 12)
    assert matched_layers(6, 3) == (2, 4, 6)
    assert matched_layers(6, 6) == (1, 2, 3, 4, 5, 6)
    assert matched_layers(6, 4) == (2, 3, 4, 6)
    assert matched_layers(12, 5) == (2, 5, 7, 10, 12)
    assert matched_layers(6, 1) == (6,)


def test_every_match_rises_to_the_last_layer():
    for n, k in PAIRS:
        matched = matched_layers(n, k)
        assert len(matched) == k, (n, k)
        assert matched[0] >= 1, (n, k)
        assert matched[-1] == n, (n, k)
        assert all(a < b for a, b in pairwise(matched)), (n, k)


@pytest.mark.parametrize("choose", [layer_map, matched_layers])
@pytest.mark.parametrize("n_layers", [0, -1, 7])
def test_depths_that_no_student_has_are_refused(choose, n_layers):
    with pytest.raises(ModelError, match=f"6-layer teacher has 1 to 6 layers, not {n_layers}"):
        choose(6, n_layers)


# Which weights


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (1, (0,)),
        (2, (0, 3)),
        (4, (0, 1, 2, 3)),
        ((1, 2), (1, 2)),
        ([0, 2], (0, 2)),
        ((3, 0), (3, 0)),
    ],
    ids=str,
)
def test_every_weight_is_the_teachers_of_the_layer_chosen(teacher, layers, kept):
    student = student_from_teacher(teacher, layers=layers)
    assert type(student) is type(teacher)
    theirs, ours = teacher.state_dict(), student.state_dict()
    expected = {}
    for name, weight in theirs.items():
        found = LAYER.search(name)
        if found is None:
            expected[name] = weight
        elif int(found[1]) in kept:
            expected[LAYER.sub(f".layer.{kept.index(int(found[1]))}.", name)] = weight
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_more_than_ten_layers_are_told_apart():
    torch.manual_seed(0)
    config = BertConfig(**SIZES | {"num_hidden_layers": 12})
    teacher = all_different(BertForSequenceClassification(config))
    student = student_from_teacher(teacher, layers=6)
    kept = [teacher.bert.encoder.layer[i] for i in (0, 2, 4, 7, 9, 11)]
    for theirs, ours in zip(kept, student.bert.encoder.layer, strict=True):
        assert all(map(torch.equal, theirs.state_dict().values(), ours.state_dict().values()))


def test_a_student_of_all_layers_says_exactly_what_its_teacher_says(teacher):
    assert logits(teacher).std() > 0.1
    assert torch.equal(logits(student_from_teacher(teacher, layers=4)), logits(teacher))


def test_a_student_is_its_teacher_without_the_other_layers(teacher):
    student = student_from_teacher(teacher, layers=(0, 2))
    cut = copy.deepcopy(teacher)
    cut.bert.encoder.layer = torch.nn.ModuleList(cut.bert.encoder.layer[i] for i in (0, 2))
    cut.config.num_hidden_layers = 2
    assert torch.equal(logits(student), logits(cut))
    assert not torch.allclose(logits(student), logits(teacher), atol=1e-2)


def test_tied_weights_stay_tied():
    torch.manual_seed(0)
    teacher = all_different(BertForMaskedLM(BertConfig(**SIZES)))
    student = student_from_teacher(teacher, layers=4)
    assert torch.equal(logits(student), logits(teacher))
    decoder, words = student.get_output_embeddings().weight, student.get_input_embeddings().weight
    assert decoder.data_ptr() == words.data_ptr()


def test_the_order_of_the_layers_is_the_students(teacher):
    there, back = (student_from_teacher(teacher, layers=order) for order in ((0, 3), (3, 0)))
    first, last = back.bert.encoder.layer
    assert torch.equal(first.output.dense.weight, there.bert.encoder.layer[1].output.dense.weight)
    assert torch.equal(last.output.dense.weight, there.bert.encoder.layer[0].output.dense.weight)
    assert not torch.allclose(logits(there), logits(back), atol=1e-2)


@pytest.mark.parametrize("layers", [range(0, 4, 2), np.array([0, 2]), [0, 2]], ids=str)
def test_layer_numbers_come_in_any_collection(teacher, layers):
    assert torch.equal(
        logits(student_from_teacher(teacher, layers=layers)),
        logits(student_from_teacher(teacher, layers=(0, 2))),
    )
    assert torch.equal(
        logits(student_from_teacher(teacher, layers=np.int64(2))),
        logits(student_from_teacher(teacher, layers=(0, 3))),
    )


# Narrower students


@pytest.mark.parametrize("hidden", [8, 24, np.int64(16)], ids=str)
def test_a_narrower_student_has_heads_and_neurons_in_proportion(teacher, hidden):
    student = student_from_teacher(teacher, layers=(1, 3), hidden=hidden)
    found = student.config
    assert (found.hidden_size, found.num_attention_heads) == (hidden, hidden // 8)
    assert found.intermediate_size == 2 * hidden  # the teacher has 64 for 32
    assert found.num_hidden_layers == len(student.bert.encoder.layer) == 2
    assert found.id2label == dict(enumerate(NAMES))
    assert logits(student).shape == (2, 3)
    assert logits(student).isfinite().all()
    assert teacher.config.hidden_size == 32


def test_a_narrower_student_keeps_the_same_corner_of_every_weight(teacher):
    student = student_from_teacher(teacher, layers=(3,), hidden=16)
    ours, theirs = student.bert.encoder.layer[0], teacher.bert.encoder.layer[3]
    kept = {
        "attention.self.query.weight": (16, 16),  # the first 2 heads of 8
        "attention.output.dense.weight": (16, 16),
        "intermediate.dense.weight": (32, 16),
        "output.dense.weight": (16, 32),
        "output.LayerNorm.weight": (16,),
    }
    for name, shape in kept.items():
        corner = theirs.get_parameter(name)[tuple(slice(n) for n in shape)]
        assert torch.equal(ours.get_parameter(name), corner), name
    assert torch.equal(student.classifier.weight, teacher.classifier.weight[:, :16])
    assert torch.equal(student.classifier.bias, teacher.classifier.bias)


@pytest.mark.parametrize("hidden", [0, -8, 12, 32, 64, 8.0, True, "8", (8,)], ids=repr)
@pytest.mark.parametrize("make", [student_from_teacher, plan_student])
def test_a_hidden_size_that_cannot_be_is_refused(teacher, make, hidden):
    with pytest.raises(ModelError, match=re.escape(f"a hidden size of {hidden!r}")) as caught:
        make(teacher, layers=2, hidden=hidden)
    assert "a multiple of the head size, 8, below the teacher's 32" in caught.value.do


# What else is kept, and what is left alone


def test_the_teacher_is_unchanged_and_shares_no_memory(teacher):
    teacher.classifier.weight.requires_grad_(False)
    before = copy.deepcopy(teacher)
    student = student_from_teacher(teacher, layers=2)
    with torch.no_grad():
        for weight in student.parameters():
            weight.fill_(7.0)
    student.config.id2label[0] = "changed"
    assert teacher.config.to_dict() == before.config.to_dict()
    assert teacher.config.num_hidden_layers == len(teacher.bert.encoder.layer) == 4
    for (name, now), then in zip(teacher.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then), name
        assert now.requires_grad == then.requires_grad, name


@pytest.mark.parametrize("training", [True, False])
def test_the_student_starts_in_the_teachers_mode_ready_to_learn(teacher, training):
    student = student_from_teacher(teacher.train(training), layers=2)
    assert {module.training for module in student.modules()} == {training}
    assert {module.training for module in teacher.modules()} == {training}
    assert all(weight.requires_grad and weight.grad is None for weight in student.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_data_type_is_the_teachers(teacher, dtype):
    student = student_from_teacher(teacher.to(dtype), layers=2)
    assert {weight.dtype for weight in student.parameters()} == {dtype}
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)


def test_the_configuration_differs_in_depth_alone(teacher):
    teacher.config.hidden_dropout_prob = 0.05
    teacher.config.problem_type = "single_label_classification"
    student = student_from_teacher(teacher, layers=2)
    assert student.config.to_dict() == teacher.config.to_dict() | {"num_hidden_layers": 2}
    assert student.config.id2label == dict(enumerate(NAMES))


def test_a_student_can_be_saved_loaded_and_have_students(teacher, tmp_path):
    student = student_from_teacher(teacher, layers=(0, 1, 3))
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.num_hidden_layers == 3
    assert again.config.id2label == dict(enumerate(NAMES))
    assert torch.equal(logits(again), logits(student))
    grandchild = student_from_teacher(again, layers=(0, 2))
    assert torch.equal(logits(grandchild), logits(student_from_teacher(teacher, layers=(0, 3))))


# What cannot be


@pytest.mark.parametrize(
    "layers",
    [
        *[(), (-1,), (0, 4), (1, -2), (0, 0), (0, 1, 2, 3, 0), (0, 1, 2, 3, 4)],
        *[(0, True), (0, 2.0), ("0", "1"), ([0], [1])],
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [student_from_teacher, plan_student])
def test_layers_that_cannot_be_chosen_are_refused(teacher, make, layers):
    with pytest.raises(ModelError, match=re.escape(str(layers))) as caught:
        make(teacher, layers=layers)
    assert "0 to 3, each once: the teacher has 4 layers" in caught.value.do


@pytest.mark.parametrize("layers", [True, False, 2.0, 1.5, None, "2"], ids=repr)
def test_what_is_no_number_of_layers_is_refused(teacher, layers):
    with pytest.raises(ModelError, match=r"cannot be made of layers \(") as caught:
        student_from_teacher(teacher, layers=layers)
    assert "0 to 3, each once" in caught.value.do


@pytest.mark.parametrize("n_layers", [0, -1, 5])
def test_a_number_of_layers_that_cannot_be_is_refused(teacher, n_layers):
    with pytest.raises(ModelError, match=f"1 to 4 layers, not {n_layers}"):
        student_from_teacher(teacher, layers=n_layers)


def test_a_model_whose_layers_have_other_names_is_refused():
    config = DistilBertConfig(vocab_size=100, dim=32, n_layers=4, n_heads=4, hidden_dim=64)
    teacher = DistilBertForSequenceClassification(config)
    with pytest.raises(ModelError, match=r"DistilBertForSequenceClassification has no encoder\.l"):
        student_from_teacher(teacher, layers=2)


TINY = {"vocab_size": 100, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4}


def decoders() -> dict[str, PreTrainedModel]:
    causal = BertConfig(**SIZES, is_decoder=True)
    return {
        "GPT2LMHeadModel": GPT2LMHeadModel(GPT2Config(**TINY)),
        "GPT2Model": GPT2Model(GPT2Config(**TINY)),
        "BertLMHeadModel": BertLMHeadModel(causal),
        "BertModel": BertModel(causal),
    }


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPT2Model", "BertLMHeadModel", "BertModel"])
@pytest.mark.parametrize("make", [student_from_teacher, plan_student])
def test_a_decoder_is_refused(make, name):
    with pytest.raises(ModelError, match=f"{name} is a decoder") as caught:
        make(decoders()[name], layers=1)
    assert "BERT, RoBERTa or ELECTRA" in caught.value.do


def test_an_encoder_decoder_is_refused():
    t5 = T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    both = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**SIZES), BertConfig(**SIZES)
    )
    for teacher in (T5ForConditionalGeneration(t5), EncoderDecoderModel(both)):
        for keep in (True, False):
            with pytest.raises(ModelError, match="is an encoder with a decoder"):
                student_from_teacher(teacher, layers=1, keep_token_types=keep)


def test_what_is_no_transformers_model_is_refused():
    for teacher in (torch.nn.Linear(2, 2), "bert-base-uncased", None):
        with pytest.raises(ModelError, match=f"A {type(teacher).__name__} where a transformers"):
            student_from_teacher(teacher, layers=1)


@pytest.mark.parametrize("way", [{}, {"hidden": 16}, {"keep_token_types": False}], ids=str)
def test_weights_that_do_not_fit_the_configuration_are_refused(teacher, way):
    teacher.classifier = torch.nn.Linear(32, 7)
    words = "classifier.weight is (7, 32); its configuration says (3, 32)"
    with pytest.raises(ModelError, match=re.escape(words)):
        student_from_teacher(teacher, layers=2, **way)
