"""Training on hidden tokens: the loss is that of the whole projection, and guesses improve."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer, TrainerCallback, TrainingArguments

from course_utils.data.encoding import EncodedTexts, encode
from course_utils.data.masking import MaskBatch
from course_utils.distill import mlm, trainer
from course_utils.distill.mlm import MlmTrainer, WatchGuesses, train_mlm
from course_utils.distill.trainer import Recipe
from course_utils.errors import CourseError, DataError, ModelError
from course_utils.machine import describe
from course_utils.models.mlm import add_mlm_head, top_guesses

RECIPE = Recipe(epochs=2, learning_rate=1e-3, batch_size=8, freeze_words=True)
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(autouse=True)
def in_float32(float32_cpu):
    """Every test here but those that ask for another data type."""


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture
def texts(tokenizer, some_texts):
    """40 of different lengths."""
    return encode(tokenizer, some_texts, max_length=24)


@pytest.fixture
def model(tiny_teacher_folder):
    model = add_mlm_head(AutoModel.from_pretrained(tiny_teacher_folder))
    model.set_attn_implementation("eager")  # as in training: the same kernel, the same digits
    return model


@pytest.fixture
def masked(tokenizer, texts):
    """The texts in one batch, 30 % of their tokens hidden."""
    collate = MaskBatch(tokenizer, share=0.3, seed=0)
    return collate([texts[i] for i in range(len(texts))])


def trainer_of(model, folder, **arguments) -> MlmTrainer:
    settings = {"output_dir": str(folder), "use_cpu": True, "report_to": "none"}
    return MlmTrainer(model, TrainingArguments(**settings | arguments), recipe=RECIPE)


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


# The loss


@pytest.mark.parametrize("n_items", [None, 500])
def test_loss_and_gradients_are_those_of_the_whole_projection(model, masked, tmp_path, n_items):
    """The vocabulary is looked at for hidden tokens alone, and it makes no difference."""
    other = copy.deepcopy(model)
    loss = trainer_of(model, tmp_path).compute_loss(model, dict(masked), num_items_in_batch=n_items)
    loss.backward()
    labels = masked["labels"]
    logits = other(masked["input_ids"], masked["attention_mask"]).logits  # (B, S, V)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    expected = expected / (n_items or (labels != -100).sum())
    expected.backward()
    torch.testing.assert_close(loss, expected)
    ours, theirs = gradients(model), gradients(other)
    assert set(ours) == set(theirs) >= {WORDS, "cls.predictions.bias"}
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-4)


def test_without_a_divisor_the_loss_is_the_library_own(model, masked, tmp_path):
    with torch.no_grad():
        loss, outputs = trainer_of(model, tmp_path).compute_loss(model, dict(masked), True)
        torch.testing.assert_close(loss, model(**masked).loss)
    assert outputs.logits.shape == ((masked["labels"] != -100).sum(), model.config.vocab_size)


def test_nothing_hidden_is_no_loss_and_no_gradient(model, masked, tmp_path):
    batch = masked | {"labels": torch.full_like(masked["labels"], -100)}
    loss = trainer_of(model, tmp_path).compute_loss(model, batch)
    loss.backward()
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients(model).values())


def test_hidden_tokens_are_counted_over_the_whole_step(model, masked, tmp_path):
    """Batches with 1 and with many hidden tokens: each token weighs the same."""
    few = {name: tensor[:4] for name, tensor in masked.items()}
    many = {name: tensor[4:] for name, tensor in masked.items()}
    mlm_trainer = trainer_of(model, tmp_path)
    _, n_items = mlm_trainer.get_batch_samples(iter([few, many]), 2, torch.device("cpu"))
    assert n_items == (masked["labels"] != -100).sum()
    with torch.no_grad():
        parts = [
            mlm_trainer.compute_loss(model, dict(batch), num_items_in_batch=n_items)
            for batch in (few, many)
        ]
        torch.testing.assert_close(sum(parts), mlm_trainer.compute_loss(model, dict(masked)))


# Training


def test_it_learns_and_keeps_its_settings(model, tokenizer, texts, masked):
    with torch.no_grad():
        at_first = model(**masked).loss
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    recipe = replace(RECIPE, epochs=30, learning_rate=3e-3)
    log = train_mlm(model, tokenizer, texts, recipe, share=0.3, progress=False)
    assert log[-1]["step"] > 100
    assert log[-1]["loss"] < 0.85 * log[0]["loss"]
    after = dict(model.named_parameters())
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {WORDS}
    assert model.cls.predictions.decoder.weight is model.get_parameter(WORDS)
    assert not model.training
    assert all(weight.requires_grad for weight in model.parameters())
    with torch.no_grad():
        assert model(**masked).loss < at_first - 0.5


def test_equal_seeds_give_equal_models(model, tokenizer, texts):
    models = []
    for seed in (1, 1, 2):
        models.append(copy.deepcopy(model))
        train_mlm(models[-1], tokenizer, texts, replace(RECIPE, seed=seed), progress=False)
    one, same, other = (m.cls.predictions.bias for m in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_masks_differ_from_epoch_to_epoch(model, tokenizer, monkeypatch):
    seen = []

    class Seen(MaskBatch):
        def __call__(self, items):
            batch = super().__call__(items)
            seen.append(batch["labels"][0].tolist())
            return batch

    monkeypatch.setattr(mlm, "MaskBatch", Seen)
    texts = encode(tokenizer, ["The array holds the sum of every row."])
    train_mlm(model, tokenizer, texts, replace(RECIPE, epochs=8), progress=False)
    assert len(seen) >= 8
    assert len(set(map(tuple, seen))) > 3


def test_guesses_are_kept_at_first_every_few_steps_and_at_the_end(model, tokenizer, texts):
    sentences = ["Plot the [MASK].", "The [MASK] of a [MASK]"]
    watch = WatchGuesses(tokenizer, sentences, every=3)
    before = [top_guesses(model, tokenizer, text) for text in sentences]
    train_mlm(model, tokenizer, texts, RECIPE, progress=False, callbacks=[watch])
    assert list(watch.seen) == [0, 3, 6, 9, 10]
    assert watch.seen[0] == before
    assert watch.seen[10] == [top_guesses(model, tokenizer, text) for text in sentences]
    assert watch.seen[3] != before
    assert [len(guesses) for guesses in watch.seen[3]] == [1, 2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_head_computes_in_the_fast_type(model, tokenizer, texts, monkeypatch, dtype):
    machine = replace(describe(), device="cpu", dtype=dtype)
    monkeypatch.setattr(trainer, "describe", lambda: machine)
    types = set()
    decoder = model.cls.predictions.decoder
    hook = decoder.register_forward_hook(lambda *call: types.add((call[2].dtype, call[2].ndim)))
    train_mlm(model, tokenizer, texts, RECIPE, progress=False)
    hook.remove()
    assert types == {(getattr(torch, dtype), 2)}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model(torch.tensor([[2, 3]])).logits.dtype == torch.float32


def test_what_cannot_be_trained_is_refused(model, tokenizer, texts):
    with pytest.raises(DataError, match="share of 2"):
        train_mlm(model, tokenizer, texts, RECIPE, share=2.0, progress=False)
    with pytest.raises(DataError, match="longest text has 65 tokens; the model reads 1 to 64"):
        train_mlm(model, tokenizer, EncodedTexts([[5] * 65]), RECIPE, progress=False)
    with pytest.raises(DataError, match="longest text has 0 tokens"):
        train_mlm(model, tokenizer, EncodedTexts([]), RECIPE, progress=False)
    model.config.vocab_size = 20
    with pytest.raises(ModelError, match="the model knows 20"):
        train_mlm(model, tokenizer, texts, RECIPE, progress=False)


def test_a_learning_rate_far_too_large_is_named(model, tokenizer, texts):
    recipe = replace(RECIPE, epochs=50, learning_rate=1e6, warmup=0.0)
    with pytest.raises(CourseError, match="learning rate below 1e"):
        train_mlm(model, tokenizer, texts, recipe, progress=False)


class StopAtOnce(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise InterruptedError


def test_after_an_interruption_the_head_sees_everything(model, tokenizer, texts):
    with pytest.raises(InterruptedError):
        train_mlm(model, tokenizer, texts, RECIPE, progress=False, callbacks=[StopAtOnce()])
    assert model(torch.tensor([[2, 7, 3]])).logits.shape == (1, 3, model.config.vocab_size)
