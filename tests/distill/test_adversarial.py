"""Adversarial training against a slow copy of it, one text after the other, moved by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import BertForSequenceClassification, TrainerCallback, TrainingArguments

from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill.adversarial import FgmTrainer, train_adversarially
from course_utils.distill.losses import distillation_loss, hard_loss, has_label
from course_utils.distill.trainer import Recipe, train
from course_utils.errors import DataError

RECIPE = Recipe(epochs=2, learning_rate=1e-3, batch_size=8)
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(autouse=True)
def in_float32(float32_cpu):
    """Every test here."""


@pytest.fixture
def few(texts) -> EncodedTexts:
    """Six texts, of which one has no label."""
    labels = texts.columns["labels"][:6].clone()
    labels[2] = -100
    return EncodedTexts(texts.input_ids[:6], labels=labels)


def taught(texts: EncodedTexts) -> EncodedTexts:
    generator = torch.Generator().manual_seed(3)
    return texts.with_columns(teacher_logits=torch.randn(len(texts), 3, generator=generator))


def weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def loss_of_one(model, texts: EncodedTexts, i: int, recipe: Recipe, move=None):
    """The loss of one text, and its word embeddings; `move` is added to them."""
    row = texts[i]
    words = model.get_input_embeddings()(torch.tensor([row["input_ids"]])).detach()
    words.requires_grad_()
    logits = model(inputs_embeds=words if move is None else words + move).logits
    labels = row["labels"][None]
    if "teacher_logits" in row:
        settings = {"alpha": recipe.alpha, "temperature": recipe.temperature}
        return distillation_loss(logits, row["teacher_logits"][None], labels, **settings), words
    return hard_loss(logits, labels).sum(), words


def slow_moves(model, texts: EncodedTexts, recipe: Recipe, epsilon: float) -> list[torch.Tensor]:
    """Equation 5, one text after the other: the gradient by the embeddings, to length epsilon."""
    moves = []
    for i in range(len(texts)):
        loss, words = loss_of_one(model, texts, i, recipe)
        (gradient,) = torch.autograd.grad(loss, words)
        length = math.sqrt(sum(g * g for g in gradient.flatten().tolist()))
        moves.append(gradient * epsilon / length if length else torch.zeros_like(gradient))
    return moves


def slow_step(model, texts: EncodedTexts, recipe: Recipe, epsilon: float) -> dict:
    """The gradients of the clean and the moved loss, by name, and the sum of both losses.

    The gradient of the word embeddings is that of the table, so here the ids go in, not vectors.
    """
    counted = has_label(texts.columns["labels"]) | ("teacher_logits" in texts.columns)
    total = 0.0
    moves = slow_moves(model, texts, recipe, epsilon)
    model.zero_grad()
    for i, move in enumerate(moves):
        for added in (0, move):
            handle = model.get_input_embeddings().register_forward_hook(
                lambda module, ids, words, added=added: words + added
            )
            logits = model(torch.tensor([texts.input_ids[i]])).logits
            handle.remove()
            labels = texts.columns["labels"][i : i + 1]
            if "teacher_logits" in texts.columns:
                teacher_logits = texts.columns["teacher_logits"][i : i + 1]
                settings = {"alpha": recipe.alpha, "temperature": recipe.temperature}
                loss = distillation_loss(logits, teacher_logits, labels, **settings)
            else:
                loss = hard_loss(logits, labels).sum()
            loss = loss / counted.sum()
            loss.backward()
            total += loss.item()
    return {name: w.grad.clone() for name, w in model.named_parameters()} | {"loss": total}


def fast_step(model, texts, folder, recipe: Recipe, epsilon: float, **arguments) -> dict:
    """The same by the trainer: one step of plain gradient descent with learning rate 1."""
    settings = {
        "per_device_train_batch_size": len(texts),
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
    } | arguments
    trainer = FgmTrainer(
        model,
        TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **settings,
        ),
        train_dataset=texts,
        data_collator=PadBatch(0),
        recipe=recipe,
        epsilon=epsilon,
    )
    before = weights(model)
    trainer.train()
    after = weights(model)
    return {name: before[name] - after[name] for name in before} | {
        "loss": trainer.state.log_history[0]["loss"]
    }


def no_dropout(make_model, **changes) -> BertForSequenceClassification:
    return make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **changes)


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("with_teacher", [False, True], ids=["labels", "teacher"])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
def test_a_step_is_that_of_the_slow_copy(make_model, few, tmp_path, epsilon, with_teacher, several):
    """With padding, a text without label, and texts of their own length each in the copy."""
    if several:
        sets = (torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) > 0).float()
        sets[2] = -100
        few = few.with_columns(labels=sets)
    texts, recipe = taught(few) if with_teacher else few, replace(RECIPE, alpha=0.3)
    expected = slow_step(no_dropout(make_model), texts, recipe, epsilon)
    found = fast_step(no_dropout(make_model), texts, tmp_path, recipe, epsilon)
    assert found.keys() == expected.keys()
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    for name in found.keys() - {"loss"}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=2e-6)


def test_three_batches_of_2_make_the_step_of_one_of_6(make_model, few, tmp_path):
    whole = fast_step(no_dropout(make_model), few, tmp_path, RECIPE, 1.0)
    parts = fast_step(
        no_dropout(make_model),
        few,
        tmp_path,
        RECIPE,
        1.0,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
    )
    for name in whole.keys() - {"loss"}:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=2e-6)


def test_the_move_makes_the_loss_larger_and_is_epsilon_long(make_model, few):
    model = make_model()
    for i, move in enumerate(slow_moves(model, few, RECIPE, 0.01)):
        labelled = few.columns["labels"][i] != -100
        assert move.norm().item() == pytest.approx(0.01 if labelled else 0.0)
        moved, _ = loss_of_one(model, few, i, RECIPE, move)
        opposite, _ = loss_of_one(model, few, i, RECIPE, -move)
        assert (moved > opposite) == labelled


def test_without_a_move_every_gradient_is_doubled(make_model, few, tmp_path):
    """Which tells a clean loss that is counted once from one that is counted twice."""
    model = no_dropout(make_model)
    rows = [few[i] for i in range(len(few))]
    batch = PadBatch(0)(rows)
    labels = batch.pop("labels")
    loss = hard_loss(model(**batch).logits, labels).sum() / 5
    loss.backward()
    found = fast_step(no_dropout(make_model), few, tmp_path, RECIPE, 0.0)
    assert found["loss"] == pytest.approx(2 * loss.item(), rel=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], 2 * weight.grad, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_words_may_be_frozen_and_still_be_moved(make_model, texts, frozen):
    recipe = replace(RECIPE, freeze_words=frozen)

    def trained(epsilon: float):
        model = make_model()
        train_adversarially(model, texts, recipe, epsilon=epsilon, progress=False)
        return weights(model)

    start, still, moved = weights(make_model()), trained(0.0), trained(2.0)
    assert torch.equal(moved[WORDS], start[WORDS]) == frozen
    assert max((still[name] - moved[name]).abs().max() for name in start) > 1e-4


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [False, True])
def test_the_model_is_an_ordinary_one_afterwards(make_model, texts, tmp_path, stopped):
    model = make_model()
    try:
        train_adversarially(
            model, texts, RECIPE, progress=False, callbacks=[Stop()] if stopped else None
        )
    except KeyboardInterrupt:
        assert stopped
    assert not any(module._forward_hooks for module in model.modules())
    model.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([texts.input_ids[0]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_equal_seeds_give_equal_weights_bit_for_bit(make_model, texts):
    def trained() -> dict[str, torch.Tensor]:
        model = make_model()
        train_adversarially(model, texts, replace(RECIPE, dropout=0.2), progress=False)
        return weights(model)

    one, same = trained(), trained()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_dev_texts_are_measured_as_they_are(make_model, texts):
    """The score of the last epoch is that of the trained model on texts that are not moved."""
    model = make_model()
    log = train_adversarially(model, texts, RECIPE, epsilon=50.0, dev=texts, progress=False)
    with torch.no_grad():
        answers = [model(torch.tensor([ids])).logits.argmax().item() for ids in texts.input_ids]
    right = sum(a == b for a, b in zip(answers, texts.columns["labels"].tolist(), strict=True))
    assert log[-1]["dev_accuracy"] == pytest.approx(right / len(texts))
    plain = make_model()
    train(plain, texts, RECIPE, progress=False)
    assert max((weights(plain)[n] - w).abs().max() for n, w in weights(model).items()) > 1e-4


@pytest.mark.parametrize("epsilon", [-1.0, math.inf, math.nan])
def test_an_epsilon_that_is_refused(make_model, texts, epsilon):
    with pytest.raises(DataError, match="epsilon is"):
        train_adversarially(make_model(), texts, RECIPE, epsilon=epsilon, progress=False)
