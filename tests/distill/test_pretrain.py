"""Distilling a masked-language model: its loss is that of the whole logits, however it is split."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertForMaskedLM,
    TrainerCallback,
    TrainingArguments,
)

from course_utils.distill import mlm_trainer, pretrain, trainer
from course_utils.distill.losses import masked_lm, soft_kl, triple_loss
from course_utils.distill.pretrain import DistillationTrainer, PretrainRecipe, distil_mlm
from course_utils.errors import CourseError, DataError, ModelError, OutputError
from course_utils.machine import describe
from course_utils.models.student import student_from_teacher

VOCABULARY, LENGTH = 60, 12
PARTS = ["soft", "masked_lm", "cosine"]
RECIPE = PretrainRecipe(
    steps=6, batch_size=4, learning_rate=1e-3, warmup=0.0, chunk_size=5, log_every=1
)


class Blocks(Dataset):
    """24 blocks of random ids, other ones masked in each epoch; some have many labels, some few."""

    fingerprint = "24 random blocks"

    def __init__(self, n: int = 24, length: int = LENGTH):
        self.n, self.length, self.epoch, self.epochs = n, length, 0, set()

    def __len__(self) -> int:
        return self.n

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.epochs.add(epoch)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        if i >= self.n:
            raise IndexError
        generator = torch.Generator().manual_seed(1000 * self.epoch + i)
        ids = torch.randint(5, VOCABULARY, (self.length,), generator=generator)
        hidden = torch.rand(self.length, generator=generator) < 0.1 + 0.6 * (i % 3 == 0)
        hidden[i % self.length] = True
        labels = torch.where(hidden, ids, -100)
        return {"input_ids": torch.where(hidden, 4, ids), "labels": labels}


def make_teacher(seed: int = 0, **changes) -> BertForMaskedLM:
    """A random BERT of 4 layers; its words differ in likelihood."""
    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
        "initializer_range": 0.4,
    } | changes
    torch.manual_seed(seed)
    return BertForMaskedLM(BertConfig(**config)).eval()


def make_student(family: str = "bert", seed: int = 1) -> BertForMaskedLM | DistilBertForMaskedLM:
    """A student of 2 layers, not the teacher's own: no loss is 0 at the start."""
    return student_from_teacher(make_teacher(seed), layers=2, keep_token_types=family == "bert")


def on_cpu_in(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    machine = replace(describe(), device="cpu", dtype=dtype)
    for module in (trainer, mlm_trainer, pretrain):
        monkeypatch.setattr(module, "describe", lambda: machine)


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    """Every test here but those that ask for another data type."""
    on_cpu_in(monkeypatch, "float32")


def trainer_of(student, teacher, folder, recipe=RECIPE, **arguments) -> DistillationTrainer:
    settings = {"output_dir": str(folder), "use_cpu": True, "report_to": "none"}
    arguments = TrainingArguments(**settings | arguments)
    return DistillationTrainer(student, teacher, arguments, recipe=recipe)


def batch_of(numbers, *, padded: bool = False, epoch: int = 0) -> dict[str, torch.Tensor]:
    blocks = Blocks()
    blocks.set_epoch(epoch)
    batch = {
        name: torch.stack([blocks[i][name] for i in numbers]) for name in ("input_ids", "labels")
    }
    if padded:  # the end of each text, another length each
        mask = torch.ones_like(batch["labels"])
        for row, keep in enumerate(torch.linspace(4, LENGTH, len(mask)).long()):
            mask[row, keep:] = 0
        batch["attention_mask"] = mask
        batch["labels"] = torch.where(mask == 1, batch["labels"], -100)
    return batch


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def assert_same_gradients(one, other, **tolerance) -> None:
    ours, theirs = gradients(one), gradients(other)
    assert set(ours) == set(theirs) == {name for name, _ in other.named_parameters()}
    for name in theirs:
        torch.testing.assert_close(
            ours[name], theirs[name], **{"atol": 1e-5, "rtol": 1e-4} | tolerance
        )


# The loss


def whole_parts(student, teacher, batch, kl_positions="masked") -> dict[str, torch.Tensor]:
    """The parts of the loss from both models' logits at every position."""
    labels = batch["labels"]
    mask = batch.get("attention_mask", torch.ones_like(labels))
    inputs = {"input_ids": batch["input_ids"], "attention_mask": mask}
    ours = student(**inputs, output_hidden_states=True)
    with torch.no_grad():
        theirs = teacher(**inputs, output_hidden_states=True)
    pair = ours.hidden_states[-1], theirs.hidden_states[-1]
    parts = triple_loss(ours.logits, theirs.logits, labels, *pair, mask)._asdict()
    if kl_positions == "masked":
        at = labels != -100
        parts["soft"] = soft_kl(ours.logits[at], theirs.logits[at], temperature=2.0).mean()
    return parts | {"total": 5 * parts["soft"] + 2 * parts["masked_lm"] + parts["cosine"]}


@pytest.mark.parametrize("kl_positions", ["masked", "all"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradients_are_those_of_the_whole_logits(tmp_path, family, kl_positions, padded):
    student, teacher = make_student(family), make_teacher()
    other, recipe = copy.deepcopy(student), replace(RECIPE, kl_positions=kl_positions)
    batch = batch_of(range(6), padded=padded)
    ours = trainer_of(student, teacher, tmp_path, recipe)
    loss = ours.compute_loss(student, dict(batch))
    loss.backward()
    expected = whole_parts(other, teacher, batch, kl_positions)["total"]
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert_same_gradients(student, other)


def test_a_distilbert_can_teach_a_bert(tmp_path):
    teacher = student_from_teacher(make_teacher(), layers=3, keep_token_types=False)
    student, batch = make_student(), batch_of(range(4))
    loss = trainer_of(student, teacher, tmp_path).compute_loss(student, dict(batch))
    expected = whole_parts(student, teacher, batch)["total"]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kl_positions", ["masked", "all"])
def test_a_student_that_is_its_teacher_has_the_hard_loss_alone(tmp_path, kl_positions):
    teacher = make_teacher()
    recipe = replace(RECIPE, kl_positions=kl_positions)
    ours = trainer_of(copy.deepcopy(teacher), teacher, tmp_path, recipe)
    batch = batch_of(range(4))
    loss = ours.compute_loss(ours.model, dict(batch))
    hard = masked_lm(teacher(batch["input_ids"]).logits, batch["labels"])
    torch.testing.assert_close(loss, 2 * hard, atol=1e-4, rtol=1e-5)


def test_without_a_teacher_the_loss_is_the_librarys_own(tmp_path):
    student, batch = make_student(), batch_of(range(4))
    loss = trainer_of(student, None, tmp_path).compute_loss(student, dict(batch))
    torch.testing.assert_close(loss, 2 * student(**batch).loss)


@pytest.mark.parametrize("kl_positions", ["masked", "all"])
def test_nothing_masked_is_no_loss_of_words_and_no_nan(tmp_path, kl_positions):
    student, batch = make_student(), batch_of(range(4))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    recipe = replace(RECIPE, kl_positions=kl_positions)
    loss = trainer_of(student, make_teacher(), tmp_path, recipe).compute_loss(student, batch)
    loss.backward()
    assert loss > 0  # the cosine counts all tokens
    assert all(gradient.isfinite().all() for gradient in gradients(student).values())


def test_weights_and_temperature_are_the_recipes(tmp_path):
    student, teacher, batch = make_student(), make_teacher(), batch_of(range(4))

    def loss(**changes) -> torch.Tensor:
        recipe = replace(RECIPE, **changes)
        with torch.no_grad():
            return trainer_of(student, teacher, tmp_path, recipe).compute_loss(student, dict(batch))

    soft, hard = loss(hard=0.0, cosine=0.0), loss(soft=0.0, cosine=0.0)
    cosine = loss(hard=0.0, cosine=4.0) - soft
    torch.testing.assert_close(loss(), soft + hard + cosine / 4)
    assert not torch.isclose(soft, loss(hard=0.0, cosine=0.0, temperature=4.0))


# The models


def test_no_logits_of_all_positions_are_ever_made(tmp_path):
    """The largest number of rows that a head's product with all words sees is N, or a chunk."""
    student, teacher, batch = make_student(), make_teacher(), batch_of(range(6))
    n_labelled = int((batch["labels"] != -100).sum())
    for kl_positions, most in (("masked", {n_labelled}), ("all", {n_labelled, 5, 72 % 5})):
        recipe = replace(RECIPE, kl_positions=kl_positions)
        ours = trainer_of(student, teacher, tmp_path, recipe)
        rows = set()
        hooks = [
            model.cls.predictions.decoder.register_forward_hook(
                lambda module, inputs, logits, rows=rows: rows.add(len(logits))
            )
            for model in (student, ours.teacher)
        ]
        ours.compute_loss(student, dict(batch))
        for hook in hooks:
            hook.remove()
        assert rows == most


def test_the_head_sees_everything_afterwards(tmp_path):
    student, batch = make_student(), batch_of(range(4))
    trainer_of(student, make_teacher(), tmp_path).compute_loss(student, dict(batch))
    assert student(batch["input_ids"]).logits.shape == (4, LENGTH, VOCABULARY)


def test_the_teacher_is_a_frozen_copy_in_the_fast_type(tmp_path, monkeypatch):
    on_cpu_in(monkeypatch, "bfloat16")
    teacher = make_teacher(hidden_dropout_prob=0.5).train()
    before = copy.deepcopy(teacher.state_dict())
    ours = trainer_of(make_student(), teacher, tmp_path)
    assert not ours.teacher.training
    assert {weight.dtype for weight in ours.teacher.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in ours.teacher.parameters())
    assert teacher.training
    assert all(torch.equal(before[name], weight) for name, weight in teacher.state_dict().items())
    assert all(weight.requires_grad for weight in teacher.parameters())
    ours.create_optimizer()
    trained = {id(w) for group in ours.optimizer.param_groups for w in group["params"]}
    assert trained == {id(weight) for weight in ours.model.parameters()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kl_positions", ["masked", "all"])
def test_heads_compute_in_the_fast_type_and_weights_stay(monkeypatch, dtype, kl_positions):
    on_cpu_in(monkeypatch, dtype)
    student, types = make_student(), set()
    decoder = student.cls.predictions.decoder
    hook = decoder.register_forward_hook(lambda *call: types.add(call[2].dtype))
    recipe = replace(RECIPE, kl_positions=kl_positions)
    log = distil_mlm(student, make_teacher(), Blocks(), recipe, progress=False)
    hook.remove()
    assert types == {getattr(torch, dtype)}
    assert {weight.dtype for weight in student.parameters()} == {torch.float32}
    assert all(math.isfinite(value) for line in log for value in line.values())


def test_models_that_do_not_fit_are_refused(tmp_path):
    student, teacher = make_student(), make_teacher(vocab_size=VOCABULARY + 1)
    with pytest.raises(ModelError, match="knows 60 words, the teacher 61"):
        distil_mlm(student, teacher, Blocks(), RECIPE, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    wide = make_teacher(hidden_size=32)
    with pytest.raises(ModelError, match="16 numbers, the teacher's 32"):
        distil_mlm(student, wide, Blocks(), RECIPE)
    distil_mlm(student, wide, Blocks(), replace(RECIPE, cosine=0.0), progress=False)
    classifier = BertForSequenceClassification(student.config)
    with pytest.raises(ModelError, match="student is a BertForSequenceClassification"):
        distil_mlm(classifier, teacher, Blocks(), RECIPE)
    with pytest.raises(ModelError, match="teacher is a BertForSequenceClassification"):
        distil_mlm(student, classifier, Blocks(), RECIPE)


# Training


def trained(student, teacher, recipe=RECIPE, **options) -> list[dict[str, float]]:
    return distil_mlm(student, teacher, Blocks(), recipe, progress=False, **options)


@pytest.mark.parametrize("kl_positions", ["masked", "all"])
def test_a_student_comes_nearer_to_its_teacher(kl_positions):
    student, teacher = make_student(seed=0), make_teacher()
    recipe = replace(RECIPE, steps=60, learning_rate=1e-2, kl_positions=kl_positions)
    log = trained(student, teacher, recipe)
    for part in ("total", "soft", "cosine"):
        assert log[-1][part] < 0.7 * log[0][part]
    assert student.cls.predictions.decoder.weight is student.get_input_embeddings().weight


@pytest.mark.parametrize("kl_positions", ["masked", "all"])
def test_a_line_of_the_log_has_means_over_all_tokens_since_the_last(kl_positions):
    """A line for each epoch, in which nothing is learned: the means over all blocks."""
    student, teacher = make_student(), make_teacher()
    start = copy.deepcopy(student)
    recipe = replace(RECIPE, steps=10, batch_size=5, learning_rate=1e-12, log_every=5)
    log = trained(student, teacher, replace(recipe, kl_positions=kl_positions))
    assert [line["step"] for line in log] == [5, 10]
    for epoch, line in enumerate(log):
        batch = batch_of(range(24), epoch=epoch)
        with torch.no_grad():
            expected = whole_parts(start, teacher, batch, kl_positions)
        for part in ("total", *PARTS):
            assert line[part] == pytest.approx(expected[part].item(), rel=1e-4)
        assert line["padding_share"] == 0
        assert line["tokens_per_s"] > 0
        assert line["mfu"] > 0
    assert log[0]["masked_lm"] != pytest.approx(log[1]["masked_lm"], rel=1e-3)
    assert log[0]["learning_rate"] > log[1]["learning_rate"] >= 0


def test_without_a_teacher_the_log_has_no_parts_of_one():
    log = trained(make_student(), None)
    assert len(log) == 6
    for line in log:
        assert line["total"] == pytest.approx(2 * line["masked_lm"])
        assert not {"soft", "cosine"} & set(line)


class Gradients(TrainerCallback):
    """Keeps the gradients of the first step."""

    def __init__(self):
        self.kept: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, *, model, **kwargs):
        self.kept = self.kept or gradients(model)


@pytest.mark.parametrize("kl_positions", ["masked", "all"])
def test_one_batch_of_8_and_4_of_2_give_the_same_gradients_and_losses(kl_positions):
    """The batches have unequal numbers of labels."""
    logs, kept = [], []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        recipe = replace(
            RECIPE,
            batch_size=batch_size,
            accumulation=accumulation,
            max_grad_norm=0.0,
            kl_positions=kl_positions,
        )
        kept.append(Gradients())
        logs.append(trained(make_student(), make_teacher(), recipe, callbacks=[kept[-1]]))
    one, other = (callback.kept for callback in kept)
    assert set(one) == set(other) == {name for name, _ in make_student().named_parameters()}
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)
    for line, same in zip(*logs, strict=True):
        for part in ("loss", "total", *PARTS):
            assert line[part] == pytest.approx(same[part], rel=1e-4)


def test_settings_of_the_optimizer_are_the_recipes(monkeypatch):
    seen = []

    class Seen(TrainerCallback):
        def on_train_begin(self, args, state, control, *, optimizer, **kwargs):
            seen.extend([args, *optimizer.param_groups])

    trained(make_student(), make_teacher(), replace(RECIPE, warmup=0.5), callbacks=[Seen()])
    arguments, *groups = seen
    assert arguments.max_grad_norm == 5.0
    assert arguments.get_warmup_steps(6) == 3
    for group in groups:
        assert (group["betas"], group["eps"], group["fused"]) == ((0.9, 0.98), 1e-6, True)
        assert group["weight_decay"] == 0


def test_frozen_words_keep_their_values_and_all_else_learns():
    student = make_student()
    before = copy.deepcopy(student.state_dict())
    trained(student, make_teacher(), replace(RECIPE, freeze_words=True))
    after = student.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"}
    assert student.cls.predictions.decoder.weight is student.get_input_embeddings().weight
    assert all(weight.requires_grad for weight in student.parameters())


def test_the_student_is_afterwards_in_its_own_mode():
    student = make_student()
    student.set_attn_implementation("sdpa")
    trained(student, make_teacher())
    assert not student.training
    assert student.config._attn_implementation == "sdpa"
    logits = student(batch_of([0])["input_ids"]).logits
    assert logits.shape == (1, LENGTH, VOCABULARY)
    assert logits.dtype == torch.float32


def test_every_epoch_the_data_is_told(tmp_path):
    blocks = Blocks()
    distil_mlm(make_student(), None, blocks, replace(RECIPE, steps=18), progress=False)
    assert blocks.epochs == {0, 1, 2}


def test_batches_become_smaller_when_memory_runs_out(monkeypatch):
    compute, sizes = DistillationTrainer.compute_loss, []

    def compute_loss(self, model, inputs, *arguments, **options):
        sizes.append(len(inputs["labels"]))
        if sizes[-1] > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return compute(self, model, inputs, *arguments, **options)

    monkeypatch.setattr(DistillationTrainer, "compute_loss", compute_loss)
    recipe = replace(RECIPE, batch_size=6, find_batch_size=True)
    start = make_student()
    log = trained(copy.deepcopy(start), make_teacher(), recipe)
    assert sizes == [6, 5, *[4] * 6]
    again = trained(start, make_teacher(), replace(RECIPE, batch_size=4))
    assert [line["total"] for line in log] == pytest.approx([line["total"] for line in again])


def test_compiled_encoders_compute_the_same(monkeypatch):
    compiled = []

    def compile_(self, **options):
        compiled.append(type(self).__name__)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    student, teacher = make_student(), make_teacher()
    log = trained(student, teacher, replace(RECIPE, compile=True))
    assert compiled == ["BertModel", "BertModel"]
    assert student.bert._compiled_call_impl is None
    plain = trained(make_student(), teacher)
    assert [line["total"] for line in log] == pytest.approx([line["total"] for line in plain])


# Faults


class PlantNaN(TrainerCallback):
    """After some steps a weight of the model is not a number."""

    def __init__(self, step: int, weight: torch.Tensor):
        self.step, self.weight = step, weight

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.weight.data.flatten()[0] = math.nan


def test_a_nan_stops_the_training_and_the_last_good_checkpoint_stays(tmp_path):
    student = make_student()
    plant = PlantNaN(4, student.cls.predictions.bias)
    recipe = replace(RECIPE, save_every=2, log_every=100)
    with pytest.raises(CourseError, match=r"at step 5: The part masked_lm .* logits hold nan"):
        trained(student, make_teacher(), recipe, out=tmp_path, callbacks=[plant])
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*"))[-1] == "checkpoint-4"


@pytest.mark.parametrize(
    ("kl_positions", "part"), [("masked", "soft"), ("all", "soft"), ("masked", "cosine")]
)
def test_a_teacher_that_says_nan_is_named(kl_positions, part):
    teacher = make_teacher()
    broken = teacher.cls.predictions.bias if part == "soft" else teacher.bert.encoder.layer[0]
    for weight in [broken] if part == "soft" else broken.parameters():
        weight.data.fill_(math.nan)
    recipe = replace(RECIPE, kl_positions=kl_positions)
    with pytest.raises(CourseError, match=rf"step 1: The part {part} .*teacher's .* hold nan"):
        trained(make_student(), teacher, recipe)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.0},
        {"soft": -1.0},
        {"soft": 0.0, "hard": 0.0},
        {"kl_positions": "some"},
        {"steps": 0},
        {"batch_size": 0},
        {"accumulation": -1},
        {"chunk_size": 0},
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(changes):
    with pytest.raises(DataError):
        replace(RECIPE, **changes)


def test_blocks_that_cannot_be_read_are_refused():
    student, teacher = make_student(), make_teacher()
    with pytest.raises(DataError, match="no block"):
        distil_mlm(student, teacher, Blocks(n=0), RECIPE)
    with pytest.raises(DataError, match="17 tokens; the models read 16"):
        distil_mlm(student, teacher, Blocks(length=17), RECIPE)
    short = make_teacher(max_position_embeddings=8)
    with pytest.raises(DataError, match="12 tokens; the models read 8"):
        distil_mlm(student, short, Blocks(), RECIPE)
    with pytest.raises(DataError, match="stream"):
        distil_mlm(student, teacher, Stream(), replace(RECIPE, steps=None))


class Stream(IterableDataset):
    def __iter__(self):
        blocks = Blocks()
        return (blocks[i] for i in range(24))


def test_a_stream_is_read_for_the_steps_asked_for():
    log = distil_mlm(make_student(), make_teacher(), Stream(), RECIPE, progress=False)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]


# Resume


class Stop(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise InterruptedError


@pytest.mark.parametrize("stop", [1, 3, 5, 9])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(tmp_path, stop):
    """In the first epoch and the second; also with more than one line of the log in between."""
    recipe = replace(RECIPE, steps=10, dropout=0.1, save_every=2, log_every=3)
    whole = make_student()
    log = trained(whole, make_teacher(), recipe)
    with pytest.raises(InterruptedError):
        trained(make_student(), make_teacher(), recipe, out=tmp_path, callbacks=[Stop(stop)])
    student = make_student()
    again = trained(student, make_teacher(), recipe, out=tmp_path)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, student.state_dict()[name])
    assert [line["step"] for line in again] == [line["step"] for line in log]
    assert again[-1]["learning_rate"] == log[-1]["learning_rate"]
    assert trained(make_student(), make_teacher(), recipe, out=tmp_path) == again


@pytest.mark.parametrize("other", ["student", "teacher", "blocks", "recipe"])
def test_a_folder_of_another_run_is_refused(tmp_path, other):
    run = {
        "student": make_student(),
        "teacher": make_teacher(),
        "blocks": Blocks(),
        "recipe": RECIPE,
    }
    distil_mlm(*run.values(), out=tmp_path, progress=False)
    another = Blocks()
    another.fingerprint = "others"
    changed = {
        "student": (make_student("distilbert"), "student.model_type"),
        "teacher": (make_teacher(seed=5), "teacher.weights"),
        "blocks": (another, "blocks '24 random blocks' there, 'others' now"),
        "recipe": (replace(RECIPE, temperature=3.0), "recipe.temperature 2.0 there, 3.0 now"),
    }
    run["student"] = make_student()
    run[other], words = changed[other]
    with pytest.raises(OutputError, match=words):
        distil_mlm(*run.values(), out=tmp_path, progress=False)


# Several processes

RUN = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pytest
import test_pretrain as tests

tests.on_cpu_in(pytest.MonkeyPatch(), "float32")
batch_size, kl_positions, out = int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
recipe = tests.replace(
    tests.RECIPE, steps=9, batch_size=batch_size, accumulation=2, kl_positions=kl_positions
)
blocks, student = tests.Blocks(), tests.make_student()
log = tests.distil_mlm(
    student, tests.make_teacher(), blocks, recipe, out=out, progress=False
)
rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
weights = {name: weight.tolist() for name, weight in student.state_dict().items()}
found = {"log": log, "weights": weights, "epochs": sorted(blocks.epochs)}
(out / f"found-{rank}.json").write_text(json.dumps(found))
"""


@pytest.mark.parametrize("kl_positions", ["masked", "all"])
def test_two_processes_train_as_one(tmp_path, kl_positions):
    """Batches of 2 in two processes and of 4 in one, over 3 epochs; float32, sums in another order.

    Each line of the log agrees to a relative 1e-4, each weight to 1e-4 of its size. The biases of
    keys are left out: softmax does not feel them, their gradient is rounding, and Adam blows it up.
    """
    script = tmp_path / "run.py"
    script.write_text(RUN)
    found = []
    for n_processes in (1, 2):
        out = tmp_path / str(n_processes)
        out.mkdir()
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += [f"--nproc_per_node={n_processes}", script, Path(__file__).parent]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [*map(str, launch), str(4 // n_processes), kl_positions, str(out)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found += [json.loads((out / f"found-{r}.json").read_text()) for r in range(n_processes)]
    one, *two = found
    for process in two:
        assert process["epochs"] == one["epochs"] == [0, 1, 2]
        for line, same in zip(process["log"], one["log"], strict=True):
            for part in ("loss", "total", *PARTS, "learning_rate", "grad_norm"):
                assert line[part] == pytest.approx(same[part], rel=1e-4)
        for name, weight in process["weights"].items():
            if not name.endswith("key.bias"):
                torch.testing.assert_close(
                    torch.tensor(weight), torch.tensor(one["weights"][name]), rtol=1e-4, atol=1e-5
                )
