"""Training for a task: a teacher on labels, a student on labels and on what the teacher said."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill.losses import (
    distillation_loss,
    hard_cross_entropy,
    hidden_mse,
    mean_over_counted,
)
from course_utils.distill.refusals import NotFiniteError
from course_utils.errors import CourseError, ModelError
from course_utils.machine import describe


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    The loss is alpha · hard + (1 - alpha) · soft + beta · hidden; without a teacher, hard alone.
    `epochs` counts readings of all texts, `warmup` is the share of steps in which the learning
    rate rises. `dropout` and `freeze_words` (the word embeddings keep their values) are set on the
    model while it trains.
    """

    epochs: float
    learning_rate: float
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.0
    freeze_words: bool = False
    alpha: float = 0.5
    temperature: float = 2.0
    beta: float = 0.0
    seed: int = 0


class TaskTrainer(Trainer):
    """A `transformers.Trainer` whose loss reads the teacher's signals from the batch.

    A batch holds `input_ids`, `attention_mask`, `labels` (B,) and, for a student, `teacher_logits`
    (B, C) and `teacher_hidden` (B, K, H): [CLS] vectors that its last K layers are to match. A loss
    that is no number ends the training with `CourseError`, signals of more layers than the model
    has with `ModelError`.
    """

    def __init__(self, *args, recipe: Recipe, **kwargs):
        super().__init__(*args, **kwargs)
        self.recipe = recipe

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of one optimizer step, and the counted texts in them over all processes.

        Divided by the number of processes, because their gradients are averaged.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        n_texts = torch.as_tensor(sum(_counted(batch).sum() for batch in batches), device=device)
        if self.args.world_size > 1:
            n_texts = self.accelerator.gather(n_texts).sum() / self.args.world_size
        return batches, n_texts

    def training_step(self, *args, **kwargs):
        try:
            loss = super().training_step(*args, **kwargs)
            fault = None if torch.isfinite(loss) else f"The loss is {loss.item()}."
        except NotFiniteError as error:
            fault = error.what
        if fault:
            raise CourseError(
                f"Training diverged at step {self.state.global_step + 1}: {fault}",
                do=f"Take a learning rate below {self.args.learning_rate:g}. If it was step 1, "
                "look for infinities and NaN in the teacher's signals.",
            )
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        counted = _counted(inputs)
        labels = inputs.pop("labels")
        teacher_logits = inputs.pop("teacher_logits", None)
        teacher_hidden = inputs.pop("teacher_hidden", None)
        outputs = model(**inputs, output_hidden_states=teacher_hidden is not None)
        logits = outputs.logits.float()
        if teacher_logits is None:
            hard = hard_cross_entropy(logits, labels)
            loss = mean_over_counted(hard, counted, num_items_in_batch)
        else:
            loss = distillation_loss(
                logits,
                teacher_logits,
                labels,
                alpha=self.recipe.alpha,
                temperature=self.recipe.temperature,
                n_counted=num_items_in_batch,
            )
        if teacher_hidden is not None:
            n_layers = teacher_hidden.shape[1]
            depth = len(outputs.hidden_states) - 1  # the first are the embeddings
            if n_layers > depth:
                raise ModelError(f"A model of {depth} layers cannot match {n_layers} of a teacher.")
            hidden = torch.stack([h[:, 0] for h in outputs.hidden_states[-n_layers:]], dim=1)
            n_vectors = None if num_items_in_batch is None else num_items_in_batch * n_layers
            loss = loss + self.recipe.beta * hidden_mse(
                hidden.float(), teacher_hidden.float(), n_counted=n_vectors
            )
        return (loss, outputs) if return_outputs else loss


def _counted(batch: dict[str, Tensor]) -> Tensor:
    """Which texts have a say in the loss, (B,): those with a label; with a teacher, all of them."""
    return (batch["labels"] != -100) | ("teacher_logits" in batch)


def train(
    model: PreTrainedModel,
    texts: EncodedTexts,
    recipe: Recipe,
    *,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> list[dict[str, float]]:
    """The log of training `model` in place for a task; see `fit`.

    Freezing the word embeddings, half of a small BERT's weights, spares the optimizer most of its
    work; a student has inherited them from its teacher.
    """
    collator = PadBatch(model.config.pad_token_id)
    return fit(TaskTrainer, model, texts, collator, recipe, progress=progress, callbacks=callbacks)


def fit(
    trainer_class: type[TaskTrainer],
    model: PreTrainedModel,
    texts: EncodedTexts,
    collator: Callable[[list[dict]], dict[str, Tensor]],
    recipe: Recipe,
    *,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> list[dict[str, float]]:
    """The log of training `model` in place: twenty dicts with `step` and `loss`.

    Weights and optimizer stay in float32; matrix products run in the machine's fast data type, and
    texts of like length share a batch. Mode, dropout and `requires_grad` are afterwards as they
    were. Raises `CourseError` when the loss is no longer a number.
    """
    machine = describe()
    with set_for_training(model, recipe), tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            warmup_steps=recipe.warmup,
            weight_decay=recipe.weight_decay,
            seed=recipe.seed,
            bf16=machine.dtype == "bfloat16",
            fp16=machine.dtype == "float16",
            use_cpu=machine.device == "cpu",
            optim="adamw_torch" if machine.device == "mps" else "adamw_torch_fused",
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            dataloader_pin_memory=machine.device == "cuda",
            logging_steps=0.05,
            logging_nan_inf_filter=False,  # it hides a NaN; TaskTrainer stops there
            save_strategy="no",
            report_to="none",
            disable_tqdm=not progress,
        )
        trainer = trainer_class(
            model,
            arguments,
            train_dataset=texts,
            data_collator=collator,
            callbacks=callbacks,
            recipe=recipe,
        )
        trainer.remove_callback(PrinterCallback)  # the log is returned, not printed
        trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@contextmanager
def set_for_training(model: PreTrainedModel, recipe: Recipe) -> Iterator[None]:
    """Nothing; the recipe's settings hold inside the block, and the model's own after it."""
    words = model.get_input_embeddings().weight
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    training, learned, rates = model.training, words.requires_grad, [m.p for m in dropouts]
    attention = model.config._attn_implementation
    if describe().device == "cpu":
        # At the lengths of single sentences the fused kernel's backward pass takes, on a CPU and in
        # bfloat16, more time than the plain matrix products (measured: 1.5 times for a whole step).
        model.set_attn_implementation("eager")
    words.requires_grad_(learned and not recipe.freeze_words)
    for module in dropouts:
        module.p = recipe.dropout
    try:
        yield
    finally:
        extract_model_from_parallel(model, keep_fp32_wrapper=False)  # no autocast left in forward
        words.requires_grad_(learned)
        model.set_attn_implementation(attention)
        for module, rate in zip(dropouts, rates, strict=True):
            module.p = rate
        model.train(training)
