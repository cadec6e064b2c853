"""Nothing is left unaccounted, and a student of all layers computes what its teacher computes."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    ElectraConfig,
    ElectraForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from course_utils.data.sources import find_model
from course_utils.errors import ModelError
from course_utils.models.student import plan_student, student_from_teacher

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "initializer_range": 0.2,
}
DISTILBERT = {
    BertModel: DistilBertModel,
    BertForMaskedLM: DistilBertForMaskedLM,
    BertForPreTraining: DistilBertForMaskedLM,
    BertForSequenceClassification: DistilBertForSequenceClassification,
    BertForTokenClassification: DistilBertForTokenClassification,
    BertForQuestionAnswering: DistilBertForQuestionAnswering,
    BertForMultipleChoice: DistilBertForMultipleChoice,
}
SAME_CLASS = [*DISTILBERT, BertForNextSentencePrediction]
NEW_HEAD = [BertForSequenceClassification, BertForMultipleChoice]
INPUT_IDS = torch.tensor([[2, 17, 33, 54, 9, 3], [2, 98, 41, 3, 0, 0]])
INPUTS = {"input_ids": INPUT_IDS, "attention_mask": (INPUT_IDS != 0).long()}
REAL = INPUTS["attention_mask"].bool()
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"


def make(kind: type[PreTrainedModel] = BertModel, config=BertConfig, **changes) -> PreTrainedModel:
    """A tiny model in eval mode with random weights, biases and norms too: no two are alike."""
    torch.manual_seed(0)
    model = kind(config(**SIZES | changes))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


@torch.no_grad()
def says(model: PreTrainedModel, **inputs) -> dict[str, torch.Tensor]:
    """All that the model gives out, hidden states among it."""
    inputs = inputs or INPUTS
    if "MultipleChoice" in type(model).__name__:
        inputs = {name: tensor[None] for name, tensor in inputs.items()}  # (1, 2, S)
    return dict(model(**inputs, output_hidden_states=True))


def assert_same_states(one: dict, other: dict) -> None:
    assert len(one["hidden_states"]) == len(other["hidden_states"])
    for a, b in zip(one["hidden_states"], other["hidden_states"], strict=True):
        torch.testing.assert_close(a[REAL], b[REAL], atol=1e-5, rtol=0)


def kl(teacher_logits: torch.Tensor, student_logits: torch.Tensor) -> float:
    p, q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).max().item()


def parameters(model: PreTrainedModel) -> set[str]:
    return {name for name, _ in model.named_parameters()}


# The plan


WAYS = [{}, {"hidden": 16}, {"layers": (3, 1)}]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("kind", "keep"),
    [*((kind, True) for kind in SAME_CLASS), *((kind, False) for kind in DISTILBERT)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_every_tensor_of_both_models_is_in_the_plan_once(kind, keep, way):
    teacher, way = make(kind), {"layers": 2, "keep_token_types": keep} | way
    plan, student = plan_student(teacher, **way), student_from_teacher(teacher, **way)
    assert type(student) is plan.kind is (kind if keep else DISTILBERT[kind])
    ours = [*plan.copied, *plan.folded, *plan.narrowed, *plan.new]
    assert len(ours) == len(set(ours))
    assert set(ours) == parameters(student)
    folded = [name for pair in plan.folded.values() for name in pair]
    theirs = [*plan.copied.values(), *plan.narrowed.values(), *folded, *plan.dropped]
    assert len(theirs) == len(set(theirs))
    assert set(theirs) == parameters(teacher)
    sizes = {name: weight.numel() for name, weight in student.named_parameters()}
    assert plan.student_sizes == sizes
    assert sum(plan.teacher_sizes.values()) == teacher.num_parameters()
    assert bool(plan.new) == (not keep and kind in NEW_HEAD)
    assert bool(plan.narrowed) == ("hidden" in way)


@pytest.mark.parametrize("keep", [True, False])
def test_the_student_holds_what_the_plan_says_of_every_tensor(keep):
    teacher = make(BertForPreTraining)
    way = {"layers": (3, 0), "hidden": 24, "keep_token_types": keep}
    plan, student = plan_student(teacher, **way), student_from_teacher(teacher, **way)
    theirs = teacher.state_dict()
    for name, weight in student.named_parameters():
        if name in plan.folded:
            positions, types = plan.folded[name]
            assert (positions, types) == (f"bert.{POSITIONS}", f"bert.{TYPES}")
            expected = (theirs[positions] + theirs[types][0])[:, :24]
        elif name in plan.narrowed:
            expected = theirs[plan.narrowed[name]]
            assert expected.shape != weight.shape
            for axis, size in enumerate(weight.shape):
                expected = expected.narrow(axis, 0, size)
        else:
            expected = theirs[plan.copied[name]]
        assert torch.equal(weight, expected), name


def test_bert_base_has_the_numbers_that_distilbert_has():
    with torch.device("meta"):
        teacher = BertModel(BertConfig())
    plan = plan_student(teacher, layers=6, keep_token_types=False)
    assert sum(plan.teacher_sizes.values()) == 109_482_240
    assert sum(plan.student_sizes.values()) == 66_362_880
    assert not plan.new
    assert not plan.narrowed
    lost = sum(plan.teacher_sizes[name] for name in plan.dropped)
    assert lost == 6 * 7_087_872 + 590_592  # layers and the pooler
    assert plan.folded == {POSITIONS: (POSITIONS, TYPES)}


@pytest.mark.parametrize("keep", [True, False])
def test_the_real_model_is_accounted_for_with_its_head(keep):
    with torch.device("meta"):
        teacher = BertForPreTraining(BertConfig())
    plan = plan_student(teacher, layers=6, keep_token_types=keep)
    kept = [n for n in plan.copied.values() if "encoder.layer" in n]
    assert {int(name.split("layer.")[1].split(".")[0]) for name in kept} == {0, 2, 4, 7, 9, 11}
    left_out = {name.partition(".")[2] for name in plan.dropped if "encoder.layer" not in name}
    assert left_out == (
        set()
        if keep
        else {
            "pooler.dense.weight",
            "pooler.dense.bias",
            "seq_relationship.weight",
            "seq_relationship.bias",
        }
    )


def test_the_plan_is_a_table_with_a_line_per_module():
    plan = plan_student(
        make(BertForSequenceClassification, num_labels=3), layers=(3, 0), keep_token_types=False
    )
    lines = [line.split() for line in str(plan).splitlines()]
    assert lines[0][:4] == ["DistilBertForSequenceClassification,", "2", "x", "32"]
    assert [" ".join(line) for line in lines[1:]] == [
        "copied distilbert.embeddings.word_embeddings bert.embeddings.word_embeddings 3 200 3 200",
        "folded distilbert.embeddings.position_embeddings bert.embeddings.position_embeddings"
        " 768 768",
        "+ row 0 bert.embeddings.token_type_embeddings 64",
        "copied distilbert.embeddings.LayerNorm bert.embeddings.LayerNorm 64 64",
        "copied distilbert.transformer.layer.0 bert.encoder.layer.3 7 504 7 504",
        "copied distilbert.transformer.layer.1 bert.encoder.layer.0 7 504 7 504",
        "new pre_classifier 1 056",
        "new classifier 99",
        "dropped bert.encoder.layer.1 7 504",
        "dropped bert.encoder.layer.2 7 504",
        "dropped bert.pooler.dense 1 056",
        "dropped classifier 99",
        "in all 20 195 35 267",
    ]
    assert repr(plan) == str(plan)


# What a student of all layers computes


@pytest.mark.parametrize("kind", SAME_CLASS, ids=lambda kind: kind.__name__)
def test_all_layers_of_the_same_class_compute_the_same(kind):
    teacher = make(kind)
    types = {"token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0]])}
    student = student_from_teacher(teacher, layers=4)
    theirs, ours = says(teacher, **INPUTS, **types), says(student, **INPUTS, **types)
    assert_same_states(theirs, ours)
    for name in theirs.keys() - {"hidden_states"}:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", DISTILBERT, ids=lambda kind: kind.__name__)
def test_all_layers_as_a_distilbert_compute_the_same_on_single_texts(kind):
    teacher = make(kind)
    student = student_from_teacher(teacher, layers=4, keep_token_types=False)
    theirs, ours = says(teacher), says(student)
    assert_same_states(theirs, ours)
    logits = {"BertForPreTraining": "prediction_logits"}.get(kind.__name__, "logits")
    if kind is BertForQuestionAnswering:
        for name in ("start_logits", "end_logits"):
            torch.testing.assert_close(ours[name][REAL], theirs[name][REAL], atol=1e-5, rtol=0)
    elif kind not in (*NEW_HEAD, BertModel):
        assert theirs[logits].std() > 0.1
        assert kl(theirs[logits][REAL], ours["logits"][REAL]) < 1e-6


def test_without_the_first_token_type_it_would_not_be_the_same():
    teacher = make()
    student = student_from_teacher(teacher, layers=4, keep_token_types=False)
    student.embeddings.position_embeddings.weight.data.copy_(
        teacher.embeddings.position_embeddings.weight
    )
    far = says(student)["last_hidden_state"] - says(teacher)["last_hidden_state"]
    assert far[REAL].abs().max() > 0.1


@pytest.mark.parametrize("layers", [2, (0, 2, 3), (3, 0)], ids=str)
def test_a_distilbert_and_a_bert_of_the_same_layers_are_the_same(layers):
    teacher = make()
    bert = student_from_teacher(teacher, layers=layers)
    distilbert = student_from_teacher(teacher, layers=layers, keep_token_types=False)
    assert_same_states(says(bert), says(distilbert))


@pytest.mark.weights
def test_real_weights_as_a_distilbert_and_as_a_bert_are_the_same():
    folder = find_model(say=lambda line: None).path
    teacher = AutoModel.from_pretrained(folder).eval()
    inputs = {"input_ids": torch.tensor([[101, 7592, 2088, 2003, 102], [101, 2748, 102, 0, 0]])}
    inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    real = inputs["attention_mask"].bool()
    for layers in (6, 3):
        bert = student_from_teacher(teacher, layers=layers)
        distilbert = student_from_teacher(teacher, layers=layers, keep_token_types=False)
        one, other = says(bert, **inputs), says(distilbert, **inputs)
        for a, b in zip(one["hidden_states"], other["hidden_states"], strict=True):
            torch.testing.assert_close(a[real], b[real], atol=1e-5, rtol=0)
        if layers == 6:
            whole = says(teacher, **inputs)["last_hidden_state"]
            torch.testing.assert_close(one["last_hidden_state"], whole, atol=1e-6, rtol=0)


def test_a_pooler_that_the_teacher_lacks_is_new():
    torch.manual_seed(0)
    teacher = BertModel(BertConfig(**SIZES), add_pooling_layer=False).eval()
    plan = plan_student(teacher, layers=4)
    assert plan.new == ("pooler.dense.weight", "pooler.dense.bias")
    assert not plan.dropped
    assert_same_states(says(teacher), says(student_from_teacher(teacher, layers=4)))


# The head that guesses words


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining])
@pytest.mark.parametrize("hidden", [None, 16])
def test_the_decoder_is_tied_and_the_rest_of_the_head_is_copied(kind, hidden):
    teacher = make(kind)
    student = student_from_teacher(teacher, layers=2, hidden=hidden, keep_token_types=False)
    assert student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight
    head, n = teacher.cls.predictions, hidden or 32
    assert torch.equal(student.vocab_projector.bias, head.bias)
    assert torch.equal(student.vocab_projector.bias, head.decoder.bias)
    assert torch.equal(student.vocab_transform.weight, head.transform.dense.weight[:n, :n])
    assert torch.equal(student.vocab_transform.bias, head.transform.dense.bias[:n])
    assert torch.equal(student.vocab_layer_norm.weight, head.transform.LayerNorm.weight[:n])
    assert torch.equal(student.vocab_layer_norm.bias, head.transform.LayerNorm.bias[:n])
    words = teacher.bert.embeddings.word_embeddings.weight
    assert torch.equal(student.vocab_projector.weight, words[:, :n])


def test_a_decoder_that_is_not_tied_is_copied_by_itself():
    teacher = make(BertForMaskedLM, tie_word_embeddings=False)
    plan = plan_student(teacher, layers=4, keep_token_types=False)
    student = student_from_teacher(teacher, layers=4, keep_token_types=False)
    assert plan.copied["vocab_projector.weight"] == "cls.predictions.decoder.weight"
    words = student.distilbert.embeddings.word_embeddings.weight
    assert not torch.equal(student.vocab_projector.weight, words)
    assert kl(says(teacher)["logits"][REAL], says(student)["logits"][REAL]) < 1e-6


# The class and the configuration of a DistilBERT


def test_the_settings_are_carried_over_under_distilberts_names():
    settings = {
        "hidden_dropout_prob": 0.11,
        "attention_probs_dropout_prob": 0.12,
        "classifier_dropout": 0.0,
        "hidden_act": "relu",
        "initializer_range": 0.03,
        "pad_token_id": 5,
        "id2label": {0: "a", 1: "b", 2: "c"},
        "label2id": {"a": 0, "b": 1, "c": 2},
        "problem_type": "multi_label_classification",
        "note": "of their own",
    }
    teacher = make(BertForSequenceClassification, **settings, attn_implementation="eager")
    student = student_from_teacher(teacher, layers=(1, 2, 3), keep_token_types=False)
    found = student.config
    assert (found.n_layers, found.dim, found.n_heads, found.hidden_dim) == (3, 32, 4, 48)
    assert (found.vocab_size, found.max_position_embeddings) == (100, 24)
    rates = (found.dropout, found.attention_dropout, found.seq_classif_dropout, found.qa_dropout)
    assert rates == (0.11, 0.12, 0.0, 0.0)
    assert (found.activation, found.initializer_range, found.pad_token_id) == ("relu", 0.03, 5)
    assert (found.id2label, found.label2id) == (settings["id2label"], settings["label2id"])
    assert (found.num_labels, found.problem_type) == (3, "multi_label_classification")
    assert (found.note, found._attn_implementation) == ("of their own", "eager")
    assert found.model_type == "distilbert"
    assert not found.sinusoidal_pos_embds
    assert student.distilbert.embeddings.position_embeddings.weight.requires_grad
    assert student.distilbert.embeddings.word_embeddings.padding_idx == 5


def test_a_classifier_without_its_own_dropout_has_that_of_the_layers():
    teacher = make(BertForSequenceClassification, hidden_dropout_prob=0.3)
    student = student_from_teacher(teacher, layers=1, keep_token_types=False)
    assert student.config.seq_classif_dropout == 0.3


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_a_student_that_was_saved_comes_back_the_same(kind, keep, tmp_path):
    student = student_from_teacher(make(kind), layers=2, hidden=16, keep_token_types=keep)
    student.save_pretrained(tmp_path)
    auto = AutoModel if kind is BertModel else AutoModelForMaskedLM
    again, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(student)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, weight in student.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    key = "last_hidden_state" if kind is BertModel else "logits"
    assert torch.equal(says(again.eval())[key], says(student)[key])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_type_and_mode_are_the_teachers_and_the_teacher_is_as_before(dtype, training):
    teacher = make(BertForMaskedLM).to(dtype).train(training)
    before = copy.deepcopy(teacher)
    student = student_from_teacher(teacher, layers=2, keep_token_types=False)
    assert {weight.dtype for weight in student.parameters()} == {dtype}
    assert {module.training for module in student.modules()} == {training}
    assert {module.training for module in teacher.modules()} == {training}
    with torch.no_grad():
        for weight in student.parameters():
            weight.fill_(7.0)
    for now, then in zip(teacher.parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then)
    assert teacher.config.to_dict() == before.config.to_dict()


def test_the_device_is_the_teachers():
    student = student_from_teacher(make().to("meta"), layers=2, hidden=8, keep_token_types=False)
    assert {weight.device.type for weight in student.parameters()} == {"meta"}


def test_a_model_without_counterpart_in_distilbert_is_refused():
    teacher = make(BertForNextSentencePrediction)
    with pytest.raises(ModelError, match="no class for a BertForNextSentencePrediction"):
        plan_student(teacher, layers=2, keep_token_types=False)
    teacher = make(RobertaForMaskedLM, RobertaConfig)
    with pytest.raises(ModelError, match="no class for a RobertaForMaskedLM"):
        student_from_teacher(teacher, layers=2, keep_token_types=False)


def test_another_epsilon_than_distilberts_is_refused():
    teacher = make(layer_norm_eps=1e-5)
    with pytest.raises(ModelError, match="epsilon of 1e-12, this teacher's has 1e-05"):
        student_from_teacher(teacher, layers=2, keep_token_types=False)
    assert student_from_teacher(teacher, layers=2).config.layer_norm_eps == 1e-5


# Families like BERT


@pytest.mark.parametrize(
    ("kind", "config"),
    [(RobertaForMaskedLM, RobertaConfig), (ElectraForMaskedLM, ElectraConfig)],
    ids=["RoBERTa", "ELECTRA"],
)
def test_roberta_and_electra_are_accounted_for_too(kind, config):
    teacher = make(kind, config, pad_token_id=0)
    plan = plan_student(teacher, layers=(0, 3))
    assert not plan.new
    assert set(plan.copied) == parameters(student_from_teacher(teacher, layers=(0, 3)))
    assert {*plan.copied.values(), *plan.dropped} == parameters(teacher)
    assert all(".layer.1." in name or ".layer.2." in name for name in plan.dropped)
    whole = student_from_teacher(teacher, layers=4)
    assert kl(says(teacher)["logits"][REAL], says(whole)["logits"][REAL]) < 1e-6


def test_a_roberta_can_be_made_narrower_and_an_electra_not():
    roberta = make(RobertaForMaskedLM, RobertaConfig)
    narrow = student_from_teacher(roberta, layers=2, hidden=8)
    assert narrow.config.hidden_size == 8
    assert narrow.lm_head.decoder.weight is narrow.get_input_embeddings().weight
    with pytest.raises(ModelError, match="embeddings of the electra family have"):
        student_from_teacher(make(ElectraForMaskedLM, ElectraConfig), layers=2, hidden=8)
