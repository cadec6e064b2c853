"""Training for a task: a teacher on labels, a student on labels and on what the teacher said."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill.losses import (
    distillation_loss,
    hard_loss,
    has_label,
    hidden_mse,
    is_multi_label,
    mean_over_counted,
)
from course_utils.distill.refusals import DivergedError, NotFiniteError, need_dev
from course_utils.errors import ModelError
from course_utils.machine import describe


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    The loss is alpha · hard + (1 - alpha) · soft + beta · hidden; without a teacher, hard alone.
    `epochs` counts readings of all texts, `warmup` is the share of steps in which the learning
    rate rises. What comes after the encoder, a pooler and a head, learns `head_factor` times as
    fast as the rest. `dropout` and `freeze_words` (the word embeddings keep their values) are set
    on the model while it trains.
    """

    epochs: float
    learning_rate: float
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    head_factor: float = 1.0
    dropout: float = 0.0
    freeze_words: bool = False
    alpha: float = 0.5
    temperature: float = 2.0
    beta: float = 0.0
    seed: int = 0


class TaskTrainer(Trainer):
    """A `transformers.Trainer` whose loss reads the teacher's signals from the batch.

    A batch holds `input_ids`, `attention_mask`, `labels` (B,), or (B, C) 0.0 and 1.0 where a text
    may have several, and, for a student, `teacher_logits` (B, C) and `teacher_hidden` (B, K, H):
    [CLS] vectors that its last K layers are to match. A loss that is no number ends the training
    with `DivergedError`, signals of more layers than the model has with `ModelError`.
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
            raise DivergedError(
                f"Training diverged at step {self.state.global_step + 1}: {fault}",
                do=f"Take a learning rate below {self.args.learning_rate:g}. If it was step 1, "
                "look for infinities and NaN in the teacher's signals.",
            )
        return loss

    def create_optimizer(self, *args, **kwargs):
        """The optimizer as ever, but for the learning rate of what comes after the encoder."""
        optimizer = super().create_optimizer(*args, **kwargs)
        factor = getattr(self.recipe, "head_factor", 1.0)  # a masked-language head is not new
        if factor != 1:
            head = set(map(id, after_encoder(self.model)))
            for group in list(optimizer.param_groups):
                own = [p for p in group["params"] if id(p) in head]
                group["params"] = [p for p in group["params"] if id(p) not in head]
                optimizer.add_param_group(group | {"params": own, "lr": group["lr"] * factor})
        return optimizer

    def evaluate(self, *args, **kwargs):
        """What was measured; the numbers drawn on the way are not missed by the training."""
        with torch.random.fork_rng(devices=[]):
            return super().evaluate(*args, **kwargs)

    def floating_point_ops(self, inputs):
        """0: nothing here reads them, and counting all weights at every step takes its time."""
        return 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        counted = _counted(inputs)
        labels = inputs.pop("labels")
        teacher_logits = inputs.pop("teacher_logits", None)
        teacher_hidden = inputs.pop("teacher_hidden", None)
        outputs = model(**inputs, output_hidden_states=teacher_hidden is not None)
        logits = outputs.logits.float()
        if teacher_logits is None:
            hard = hard_loss(logits, labels)
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


def after_encoder(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The parameters of what is neither embeddings nor encoder: the pooler and the head."""
    body = {
        id(parameter)
        for name, part in model.base_model.named_children()
        if name != "pooler"
        for parameter in part.parameters()
    }
    return [parameter for parameter in model.parameters() if id(parameter) not in body]


def _counted(batch: dict[str, Tensor]) -> Tensor:
    """Which texts have a say in the loss, (B,): those with a label; with a teacher, all of them."""
    return has_label(batch["labels"]) | ("teacher_logits" in batch)


def train(
    model: PreTrainedModel,
    texts: EncodedTexts,
    recipe: Recipe,
    *,
    dev: EncodedTexts | None = None,
    patience: int | None = None,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> list[dict[str, float]]:
    """The log of training `model` in place for a task; see `fit`.

    Freezing the word embeddings, half of a small BERT's weights, spares the optimizer most of its
    work; a student has inherited them from its teacher.
    """
    return fit(
        TaskTrainer,
        model,
        texts,
        PadBatch(model.config.pad_token_id),
        recipe,
        dev=dev,
        patience=patience,
        progress=progress,
        callbacks=callbacks,
    )


def fit(
    trainer_class: Callable[..., TaskTrainer],
    model: PreTrainedModel,
    texts: EncodedTexts,
    collator: Callable[[list[dict]], dict[str, Tensor]],
    recipe: Recipe,
    *,
    dev: EncodedTexts | None = None,
    patience: int | None = None,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> list[dict[str, float]]:
    """The log of training `model` in place: twenty dicts with `step` and `loss`.

    Weights and optimizer stay in float32; matrix products run in the machine's fast data type, and
    texts of like length share a batch. Mode, dropout and `requires_grad` are afterwards as they
    were.

    With `dev` the log has, among the others, a dict with `epoch`, `step`, `dev_accuracy` and
    `dev_loss` for each epoch: measured on those of its texts that have labels, against these alone,
    in the data type of the training. Where a text may have several classes, it is right if all of
    them are. With `patience` training ends after so many epochs without a better accuracy than the
    best, and the model has the weights of the best epoch, the first of equals.

    Raises `DivergedError` when the loss is no longer a number, `DataError` for a `dev` without
    labels and for `patience` without `dev`.
    """
    need_dev(None if dev is None else dev.columns["labels"], patience)
    callbacks = [*(callbacks or ()), ProgressBar()] if progress else list(callbacks or ())
    with set_for_training(model, recipe), quiet(), tempfile.TemporaryDirectory() as scratch:
        best = {}
        if patience is not None:
            callbacks.append(EarlyStoppingCallback(patience))
            best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy"}
            best |= {"save_strategy": "best", "save_only_model": True, "save_total_limit": 1}
        trainer = trainer_class(
            model,
            training_arguments(recipe, scratch, measured=dev is not None, **best),
            train_dataset=texts,
            eval_dataset=None if dev is None else labelled(dev),
            compute_metrics=dev_accuracy,
            data_collator=collator,
            callbacks=callbacks,
            recipe=recipe,
        )
        trainer.remove_callback(PrinterCallback)  # the log is returned, not printed
        trainer.train()
    return [line for entry in trainer.state.log_history if (line := _line(entry))]


def training_arguments(
    recipe: Recipe, folder: str, *, measured: bool, **more: object
) -> TrainingArguments:
    """What `transformers.Trainer` is told: the recipe's settings, and those of this machine.

    `measured` asks for an evaluation after every epoch.
    """
    machine = describe()
    return TrainingArguments(
        output_dir=folder,
        **recipe_arguments(recipe),
        bf16=machine.dtype == "bfloat16",
        fp16=machine.dtype == "float16",
        use_cpu=machine.device == "cpu",
        optim="adamw_torch" if machine.device == "mps" else "adamw_torch_fused",
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=machine.device == "cuda",
        logging_steps=0.05,
        logging_nan_inf_filter=False,  # it hides a NaN; TaskTrainer stops there
        eval_strategy="epoch" if measured else "no",
        report_to="none",
        disable_tqdm=True,  # it prints the log, too; there is ProgressBar
        **{"save_strategy": "no"} | more,
    )


def recipe_arguments(recipe: Recipe) -> dict[str, float]:
    """Those of the recipe's settings that `TrainingArguments` has, by the names they have there."""
    return {
        "num_train_epochs": float(recipe.epochs),
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "learning_rate": float(recipe.learning_rate),
        "warmup_steps": float(recipe.warmup),
        "weight_decay": float(recipe.weight_decay),
        "seed": recipe.seed,
    }


def labelled(texts: EncodedTexts) -> EncodedTexts:
    """The texts that have labels, with these and without a teacher's signals, to be measured on."""
    labels = texts.columns["labels"]
    rows = has_label(labels).nonzero()[:, 0].tolist()
    return EncodedTexts([texts.input_ids[i] for i in rows], labels=labels[rows])


def dev_accuracy(predictions: EvalPrediction) -> dict[str, float]:
    """The share of right texts, as `accuracy`."""
    logits, labels = map(torch.as_tensor, predictions)  # (N, C); (N,) or (N, C)
    if is_multi_label(labels):
        right = ((logits > 0) == labels.bool()).all(-1)  # (N,)
    else:
        right = logits.argmax(-1) == labels
    return {"accuracy": right.float().mean().item()}


def _line(entry: dict[str, float]) -> dict[str, float] | None:
    """The log's line as it is returned; None for the summary at the end."""
    if "eval_accuracy" in entry:
        measured = {f"dev_{name}": entry[f"eval_{name}"] for name in ("accuracy", "loss")}
        return {"epoch": entry["epoch"], "step": entry["step"]} | measured
    return entry if "loss" in entry else None


class ProgressBar(TrainerCallback):
    """Shows the steps done, the loss and, where it is measured, the accuracy on the dev texts."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(total=state.max_steps, desc="training", unit="step")

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, *, logs, **kwargs):
        for name in {"loss", "eval_accuracy"} & logs.keys():
            shown = {name.replace("eval", "dev"): f"{logs[name]:.3f}"}
            self.bar.set_postfix(shown)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing; inside the block transformers shows neither its warnings nor its bars."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def set_for_training(model: PreTrainedModel, recipe: Recipe) -> Iterator[None]:
    """Nothing; the recipe's settings hold inside the block, and the model's own after it."""
    words = model.get_input_embeddings().weight
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    training, learned, rates = model.training, words.requires_grad, [m.p for m in dropouts]
    attention = model.config._attn_implementation
    apply_recipe(model, recipe)
    try:
        yield
    finally:
        extract_model_from_parallel(model, keep_fp32_wrapper=False)  # no autocast left in forward
        words.requires_grad_(learned)
        model.set_attn_implementation(attention)
        for module, rate in zip(dropouts, rates, strict=True):
            module.p = rate
        model.train(training)


def apply_recipe(model: PreTrainedModel, recipe: Recipe) -> None:
    """Nothing; from now on the model has the recipe's dropout and learns what it is to learn."""
    if describe().device == "cpu":
        # At the lengths of single sentences the fused kernel's backward pass takes, on a CPU and in
        # bfloat16, more time than the plain matrix products (measured: 1.5 times for a whole step).
        model.set_attn_implementation("eager")
    words = model.get_input_embeddings().weight
    words.requires_grad_(words.requires_grad and not recipe.freeze_words)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = recipe.dropout
