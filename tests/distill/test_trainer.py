"""Training: what the loss is made of, what one step does, and what is left of it afterwards."""

from __future__ import annotations

import copy
import math
import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill import trainer
from course_utils.distill.cache import teacher_signals
from course_utils.distill.losses import distillation_loss
from course_utils.distill.refusals import DivergedError
from course_utils.distill.trainer import Recipe, TaskTrainer, train
from course_utils.errors import CourseError, DataError, ModelError
from course_utils.machine import describe

RECIPE = Recipe(epochs=2, learning_rate=1e-3, batch_size=8, dropout=0.0)
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(autouse=True)
def in_float32(float32_cpu):
    """Every test here but those that ask for another data type."""


def first(texts: EncodedTexts, n: int) -> EncodedTexts:
    return EncodedTexts(texts.input_ids[:n], **{k: v[:n] for k, v in texts.columns.items()})


def with_labels(texts: EncodedTexts, labels: torch.Tensor) -> EncodedTexts:
    return EncodedTexts(texts.input_ids, **(texts.columns | {"labels": labels}))


def with_signals(texts: EncodedTexts, make_model, layers: tuple[int, ...] = ()) -> EncodedTexts:
    """The texts with what another random model of the same shape says about them."""
    teacher = make_model(seed=7)
    return texts.with_columns(
        **teacher_signals(teacher, texts, hidden_layers=layers, progress=False)
    )


def with_sets(texts: EncodedTexts, unlabelled: slice = slice(0)) -> EncodedTexts:
    """The texts with none to three classes each, some of which can be learned from the first id."""
    first_ids = torch.tensor([ids[0] for ids in texts.input_ids])
    sets = torch.stack([first_ids < 40, first_ids > 60, first_ids % 2 == 0], dim=1).float()
    sets[unlabelled] = -100
    return with_labels(texts, sets)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def largest_difference(one: dict, other: dict) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


def task_trainer(model, texts, folder, recipe: Recipe = RECIPE, **arguments) -> TaskTrainer:
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    } | arguments
    return TaskTrainer(
        model,
        TrainingArguments(**settings),
        train_dataset=texts,
        data_collator=PadBatch(0),
        recipe=recipe,
    )


def loss_of(model, texts, folder, recipe: Recipe) -> torch.Tensor:
    """The trainer's loss of all texts in one batch, with its graph."""
    batch = PadBatch(0)([texts[i] for i in range(len(texts))])
    return task_trainer(model, texts, folder, recipe).compute_loss(model, batch)


# What the loss is made of


def direct(model, texts, **wanted):
    batch = PadBatch(0)([{"input_ids": ids} for ids in texts.input_ids])
    return model(**batch, **wanted)


def test_without_a_teacher_the_loss_is_the_mean_cross_entropy(make_model, texts, tmp_path):
    model = make_model()
    expected = F.cross_entropy(direct(model, texts).logits, texts.columns["labels"])
    torch.testing.assert_close(loss_of(model, texts, tmp_path, RECIPE), expected)


def test_without_a_teacher_texts_without_label_are_not_counted(make_model, texts, tmp_path):
    model = make_model()
    labels = texts.columns["labels"].clone()
    labels[10:] = -100
    expected = F.cross_entropy(direct(model, texts).logits[:10], labels[:10])
    torch.testing.assert_close(
        loss_of(model, with_labels(texts, labels), tmp_path, RECIPE), expected
    )


def test_with_a_teacher_the_loss_is_that_of_distillation(make_model, texts, tmp_path):
    model, recipe = make_model(), replace(RECIPE, alpha=0.3, temperature=4.0)
    labels = texts.columns["labels"].clone()
    labels[::3] = -100
    taught = with_signals(with_labels(texts, labels), make_model)
    expected = distillation_loss(
        direct(model, texts).logits,
        taught.columns["teacher_logits"],
        labels,
        alpha=0.3,
        temperature=4.0,
    )
    torch.testing.assert_close(loss_of(model, taught, tmp_path, recipe), expected)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_beta_weighs_the_distance_to_the_last_layers(make_model, texts, tmp_path, n_layers):
    model = make_model()
    taught = with_signals(texts, make_model, layers=tuple(range(1, n_layers + 1)))
    target = taught.columns["teacher_hidden"].float()
    after = direct(model, texts, output_hidden_states=True).hidden_states  # embeddings, 1, 2, 3, 4
    distances = [
        (after[4 - n_layers + 1 + k][:, 0] - target[:, k]).square().mean() for k in range(n_layers)
    ]
    without, once, thrice = (
        loss_of(model, taught, tmp_path, replace(RECIPE, beta=beta)) for beta in (0.0, 1.0, 3.0)
    )
    torch.testing.assert_close(once - without, sum(distances) / n_layers)
    torch.testing.assert_close(thrice - without, 3 * sum(distances) / n_layers)


def test_labels_of_several_classes_make_the_loss_a_binary_one(make_model, texts, tmp_path):
    model, several = make_model(), with_sets(texts, slice(0, 5))
    labels = several.columns["labels"]
    logits = direct(model, texts).logits
    expected = F.binary_cross_entropy_with_logits(logits[5:], labels[5:], reduction="sum")
    expected = expected / (len(texts) - 5)  # by texts, not by texts times classes
    torch.testing.assert_close(loss_of(model, several, tmp_path, RECIPE), expected)

    taught, recipe = with_signals(several, make_model), replace(RECIPE, alpha=0.3, temperature=4.0)
    expected = distillation_loss(
        logits, taught.columns["teacher_logits"], labels, alpha=0.3, temperature=4.0
    )
    torch.testing.assert_close(loss_of(model, taught, tmp_path, recipe), expected)


def test_more_matched_layers_than_the_model_has_are_refused(make_model, texts, tmp_path):
    taught = with_signals(texts, make_model, layers=(1, 2, 3, 4))
    student = make_model(num_hidden_layers=3)
    with pytest.raises(ModelError, match="3 layers cannot match 4"):
        loss_of(student, taught, tmp_path, replace(RECIPE, beta=1.0))


def test_the_models_outputs_come_back_if_asked_for(make_model, texts, tmp_path):
    model = make_model()
    batch = PadBatch(0)([texts[i] for i in range(len(texts))])
    loss, outputs = task_trainer(model, texts, tmp_path).compute_loss(model, batch, True)
    assert loss.shape == ()
    assert torch.equal(outputs.logits, direct(model, texts).logits)


# One step


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("taught", [False, True], ids=["labels", "teacher"])
@pytest.mark.parametrize("n_texts", [32, 30])
def test_four_batches_of_8_make_the_step_of_one_batch_of_32(
    make_model, texts, tmp_path, n_texts, taught, several
):
    """Also where the last of the four is smaller, and the labelled texts are spread unevenly."""
    labels = (with_sets(texts) if several else texts).columns["labels"].clone()
    labels[[0, 1, 2, 3, 4, 5, 11]] = -100
    texts = first(with_labels(texts, labels), n_texts)
    if taught:
        texts = with_signals(texts, make_model, layers=(2, 4))
    recipe = replace(RECIPE, beta=0.5)
    model = make_model()
    start = weights(model)
    loss_of(model, texts, tmp_path, recipe).backward()
    expected = {name: start[name] - 0.1 * w.grad for name, w in model.named_parameters()}

    def step(batch_size: int, n_batches: int) -> dict[str, torch.Tensor]:
        model = make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        task_trainer(
            model,
            texts,
            tmp_path,
            recipe,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=n_batches,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
        ).train()
        return weights(model)

    assert largest_difference(expected, start) > 1e-2
    assert largest_difference(step(32, 1), expected) < 1e-5
    assert largest_difference(step(8, 4), expected) < 1e-5


# What training does


def test_the_teacher_is_obeyed_against_the_labels(make_model, texts):
    """With alpha 0 and the label 0 for all, the student still learns what the teacher says."""
    targets = texts.columns["labels"]
    taught = with_labels(texts, torch.zeros_like(targets)).with_columns(
        teacher_logits=4.0 * F.one_hot(targets).float()
    )

    def agreement(alpha: float) -> float:
        model = make_model()
        train(model, taught, replace(RECIPE, epochs=25, alpha=alpha), progress=False)
        return (direct(model, texts).logits.argmax(-1) == targets).float().mean().item()

    assert agreement(alpha=0.0) > 0.95
    assert agreement(alpha=1.0) == (targets == 0).float().mean().item()


def test_beta_brings_the_last_layers_nearer_to_the_teachers(make_model, texts):
    taught = with_signals(texts, make_model, layers=(2, 4))
    target = taught.columns["teacher_hidden"].float()

    def distance(beta: float) -> float:
        model = make_model()
        train(model, taught, replace(RECIPE, epochs=10, beta=beta), progress=False)
        with torch.no_grad():
            after = direct(model, texts, output_hidden_states=True).hidden_states
        hidden = torch.stack([after[3][:, 0], after[4][:, 0]], dim=1)
        return F.mse_loss(hidden, target).item()

    assert distance(beta=1.0) < 0.7 * distance(beta=0.0)


def test_the_log_of_a_short_training_holds_every_step(make_model, texts):
    log = train(make_model(), texts, replace(RECIPE, epochs=1), progress=False)
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]


def test_the_log_holds_step_and_loss_as_numbers_and_the_loss_falls(make_model, texts, capfd):
    log = train(make_model(), texts, replace(RECIPE, epochs=20), progress=False)
    assert [entry["step"] for entry in log] == list(range(6, 121, 6))  # 6 batches an epoch
    assert all(type(entry["loss"]) is float for entry in log)
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert capfd.readouterr().out == ""


def test_progress_is_shown_if_wanted(make_model, texts, capfd):
    train(make_model(), texts, RECIPE, progress=True)
    assert "12/12" in capfd.readouterr().err


def test_equal_seeds_give_equal_weights_bit_for_bit(make_model, texts):
    def trained(seed: int) -> dict[str, torch.Tensor]:
        model = make_model()
        torch.manual_seed(torch.seed())  # whatever happened before training must not matter
        train(model, texts, replace(RECIPE, dropout=0.3, seed=seed), progress=False)
        return weights(model)

    one, same, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert largest_difference(one, other) > 1e-4


def test_dropout_of_the_recipe_is_the_one_used(make_model, texts):
    seen = set()

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.update(m.p for m in model.modules() if isinstance(m, torch.nn.Dropout))
            assert model.training

    train(make_model(), texts, replace(RECIPE, dropout=0.25), progress=False, callbacks=[Look()])
    assert seen == {0.25}


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_words_keep_their_values_while_all_else_learns(make_model, texts, frozen):
    model = make_model()
    before = weights(model)
    train(model, texts, replace(RECIPE, freeze_words=frozen), progress=False)
    after = weights(model)
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == ({WORDS} if frozen else set())


def test_several_classes_per_text_are_learned(make_model, texts):
    model, several = make_model(), with_sets(texts)
    log = train(model, several, replace(RECIPE, epochs=30), dev=several, progress=False)
    right = (direct(model, texts).logits > 0) == several.columns["labels"].bool()
    measured = [entry["dev_accuracy"] for entry in log if "dev_accuracy" in entry]
    assert measured[-1] == pytest.approx(right.all(-1).float().mean().item())
    assert measured[-1] > max(0.8, 2 * measured[0])


# Texts to measure on


def test_each_epoch_is_measured_on_the_dev_texts(make_model, texts):
    """What is measured is what the model of that epoch says, against the labels there are."""
    labels = texts.columns["labels"].clone()
    labels[::4] = -100
    dev = with_signals(with_labels(texts, labels), make_model, layers=(2, 4))
    model, expected = make_model(), []

    class Look(TrainerCallback):
        def on_epoch_end(self, args, state, control, model, **kwargs):
            model.eval()
            with torch.no_grad():
                logits = direct(model, texts).logits
            model.train()
            right = (logits.argmax(-1) == labels)[labels != -100].float().mean().item()
            loss = F.cross_entropy(logits, labels).item()
            expected.append({"step": state.global_step, "dev_accuracy": right, "dev_loss": loss})

    log = train(
        model, texts, replace(RECIPE, epochs=3), dev=dev, progress=False, callbacks=[Look()]
    )
    measured = [entry for entry in log if "dev_accuracy" in entry]
    assert [list(entry) for entry in measured] == [["epoch", "step", *list(expected[0])[1:]]] * 3
    assert [entry.pop("epoch") for entry in measured] == [1, 2, 3]
    for found, wanted in zip(measured, expected, strict=True):
        assert found["dev_loss"] == pytest.approx(wanted["dev_loss"], rel=1e-4)
        assert found["dev_accuracy"] == pytest.approx(wanted["dev_accuracy"])
        assert found["step"] == wanted["step"]
    assert [entry["step"] for entry in log] == sorted(entry["step"] for entry in log)
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 19))


@pytest.mark.parametrize(("epochs", "measured_at"), [(0.5, [0.5]), (1.5, [1.0, 1.5])])
def test_a_last_epoch_that_is_not_whole_is_measured_too(make_model, texts, epochs, measured_at):
    log = train(make_model(), texts, replace(RECIPE, epochs=epochs), dev=texts, progress=False)
    found = [entry["epoch"] for entry in log if "dev_accuracy" in entry]
    assert found == pytest.approx(measured_at)


@pytest.mark.parametrize("patience", [None, 9])
def test_measuring_changes_nothing_in_the_training(make_model, texts, patience):
    """Not even what dropout draws, or the order of the texts."""
    recipe = replace(RECIPE, dropout=0.3, epochs=1 if patience else 3)
    plain, measured = make_model(), make_model()
    train(plain, texts, recipe, progress=False)
    train(measured, texts, recipe, dev=first(texts, 10), patience=patience, progress=False)
    assert largest_difference(weights(plain), weights(measured)) == 0.0


class Watch(TrainerCallback):
    """Keeps the weights after each epoch."""

    def __init__(self):
        self.after = []

    def on_epoch_end(self, args, state, control, model, **kwargs):
        self.after.append(weights(model))


def spoilt_from(epoch: int) -> TrainerCallback:
    """A callback that, from the end of this epoch on, makes the model say one class alone."""

    class Spoil(TrainerCallback):
        def on_epoch_end(self, args, state, control, model, **kwargs):
            if state.epoch > epoch - 0.5:
                model.classifier.bias.data[:] = torch.tensor([-99.0, 99.0, -99.0])

    return Spoil()


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_ends_training_and_brings_the_best_weights_back(make_model, texts, patience):
    model, watch, start = make_model(), Watch(), make_model()
    log = train(
        model,
        texts,
        replace(RECIPE, epochs=20, learning_rate=3e-3),
        dev=texts,
        patience=patience,
        progress=False,
        callbacks=[watch, spoilt_from(epoch=6)],
    )
    scores = [entry["dev_accuracy"] for entry in log if "dev_accuracy" in entry]
    best = scores.index(max(scores))  # the first of equals
    assert len(scores) == best + 1 + patience <= 8
    assert scores[0] < scores[best]
    assert largest_difference(weights(model), watch.after[best]) == 0.0
    assert largest_difference(weights(model), weights(start)) > 1e-2
    answers = direct(model, texts).logits.argmax(-1)
    right = (answers == texts.columns["labels"]).float().mean().item()
    assert right == pytest.approx(scores[best])


def test_patience_that_is_not_needed_leaves_the_best_epoch_as_well(make_model, texts):
    """Training goes to its end, and the model has still the weights of its best epoch."""
    model, watch = make_model(), Watch()
    recipe = replace(RECIPE, epochs=6, learning_rate=3e-3, freeze_words=True)
    callbacks = [watch, spoilt_from(epoch=4)]
    log = train(model, texts, recipe, dev=texts, patience=9, progress=False, callbacks=callbacks)
    scores = [entry["dev_accuracy"] for entry in log if "dev_accuracy" in entry]
    assert len(scores) == 6
    best = scores.index(max(scores))
    assert best < 3
    assert largest_difference(weights(model), watch.after[best]) == 0.0
    assert torch.equal(model.get_parameter(WORDS), make_model().get_parameter(WORDS))


def test_measuring_prints_nothing_but_the_bar(make_model, texts, capfd, caplog):
    train(make_model(), texts, RECIPE, dev=texts, patience=1, progress=False)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    train(make_model(), texts, RECIPE, dev=texts, patience=2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "training: 100%" in err
    assert "dev_accuracy=0." in err
    assert "{" not in err
    assert not caplog.records


@pytest.mark.parametrize(
    ("dev_labels", "patience", "words"),
    [
        (None, 2, "patience is 2, but there are no texts"),
        ([0, 1], 0, "patience is 0; it counts"),
        ([-100, -100], None, "None of the 2 dev texts has a label"),
        ([], 1, "None of the 0 dev texts"),
        ([[-100.0] * 3] * 2, 1, "None of the 2 dev texts"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_training(
    make_model, texts, dev_labels, patience, words
):
    dev = None
    if dev_labels is not None:
        dev = EncodedTexts(texts.input_ids[: len(dev_labels)], labels=torch.tensor(dev_labels))
    model = make_model()
    with pytest.raises(DataError, match=words):
        train(model, texts, RECIPE, dev=dev, patience=patience, progress=False)
    assert largest_difference(weights(model), weights(make_model())) == 0.0


# What is left afterwards


class Stop(Exception):
    pass


class StopAtStep3(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise Stop


def settings(model) -> list:
    return [
        [m.training for m in model.modules()],
        [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)],
        {name: weight.requires_grad for name, weight in model.named_parameters()},
    ]


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("words_learn", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_settings(make_model, texts, stopped, words_learn, training):
    model = make_model(hidden_dropout_prob=0.17, classifier_dropout=0.4).train(training)
    model.get_parameter(WORDS).requires_grad_(words_learn)
    model.classifier.bias.requires_grad_(False)
    before, start = settings(model), weights(model)
    recipe = replace(RECIPE, dropout=0.0, freeze_words=words_learn)
    if stopped:
        with pytest.raises(Stop):
            train(model, texts, recipe, progress=False, callbacks=[StopAtStep3()])
    else:
        train(model, texts, recipe, progress=False)
    assert settings(model) == before
    assert largest_difference(weights(model), start) > 1e-4  # it did learn
    assert torch.equal(model.get_parameter(WORDS), start[WORDS])
    assert torch.equal(model.classifier.bias, start["classifier.bias"])


@pytest.mark.parametrize("stopped", [False, True])
def test_mixed_precision_ends_with_the_training(make_model, texts, monkeypatch, stopped):
    """The model computes in float32 again, as a new one with the same weights does."""
    machine = replace(describe(), device="cpu", dtype="bfloat16")
    monkeypatch.setattr(trainer, "describe", lambda: machine)
    model, types = make_model(), set()
    hook = model.classifier.register_forward_hook(lambda *call: types.add(call[2].dtype))
    try:
        train(model, texts, RECIPE, progress=False, callbacks=[StopAtStep3()] * stopped)
    except Stop:
        assert stopped
    hook.remove()
    assert types == {torch.bfloat16}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    new = make_model()
    new.load_state_dict(model.state_dict())
    assert torch.equal(direct(model, texts).logits, direct(new, texts).logits)
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(copied.classifier.weight)
    assert not torch.equal(direct(copied, texts).logits, direct(model, texts).logits)


def test_nothing_is_left_in_the_working_directory(make_model, texts, tmp_path, monkeypatch):
    scratch, here = tmp_path / "scratch", tmp_path / "here"
    scratch.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    train(make_model(), texts, RECIPE, progress=False)
    train(make_model(), texts, RECIPE, dev=texts, patience=1, progress=False)
    with pytest.raises(Stop):
        train(make_model(), texts, RECIPE, progress=False, callbacks=[StopAtStep3()])
    assert os.listdir(here) == os.listdir(scratch) == []


def test_the_texts_can_be_read_again(make_model, texts):
    taught = with_signals(texts, make_model, layers=(4,))
    ids = copy.deepcopy(taught.input_ids)
    columns = {name: column.clone() for name, column in taught.columns.items()}
    train(make_model(), taught, replace(RECIPE, beta=1.0), progress=False)
    assert taught.input_ids == ids
    assert all(torch.equal(taught.columns[name], columns[name]) for name in columns)


# When the loss is no number


@pytest.mark.parametrize("junk", [math.nan, math.inf])
@pytest.mark.parametrize("signal", ["teacher_logits", "teacher_hidden"])
def test_a_signal_that_is_no_number_ends_training_before_it_does_harm(
    make_model, texts, signal, junk
):
    taught = with_signals(texts, make_model, layers=(4,))
    taught.columns[signal][:] = junk
    model = make_model()
    start = weights(model)
    named = rf"The teacher's {signal.removeprefix('teacher_')} hold {junk}"
    with pytest.raises(CourseError, match=rf"step 1: {named}(?s:.*)teacher's signals"):
        train(model, taught, replace(RECIPE, beta=1.0), progress=False)
    assert largest_difference(weights(model), start) == 0.0


def test_a_learning_rate_far_too_large_is_named_with_the_step(make_model, texts):
    steps = []

    class Count(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    recipe = replace(RECIPE, epochs=50, learning_rate=1e6, warmup=0.0)
    with pytest.raises(DivergedError, match="learning rate below 1e") as caught:
        train(make_model(), texts, recipe, progress=False, callbacks=[Count()])
    assert f"diverged at step {steps[-1] + 1}:" in str(caught.value)
    assert steps[0] == 1
