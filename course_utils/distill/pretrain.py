"""Distilling a masked-language model into a smaller one, as DistilBERT was made: one call.

Sanh et al. 2019, "DistilBERT, a distilled version of BERT". The loss and what it costs are in
`mlm_trainer`; here are the settings, the run and its checkpoints.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from course_utils.distill.checkpoints import AtomicCheckpoints, Checkpoints
from course_utils.distill.mlm_trainer import DistillationTrainer, need_a_pair
from course_utils.distill.refusals import need_temperature, need_weights
from course_utils.distill.trainer import set_for_training
from course_utils.errors import DataError
from course_utils.machine import describe, keep_freed_memory
from course_utils.models.mlm import MaskedLM


@dataclass(frozen=True)
class PretrainRecipe:
    """How one student is distilled; what is left out is as in the DistilBERT authors' code.

    The loss is soft · KL + hard · masked LM + cosine · hidden cosine, see `losses.triple_loss`.
    `kl_positions` says where teacher and student are compared word by word: "all", as the authors
    did, or "masked", at the tokens with a label, which takes half the time. One process reads
    `batch_size` blocks at once, and `accumulation` such batches make a step. `steps` counts steps,
    `epochs` readings of all blocks where there are no `steps`; `warmup` is a share of the steps,
    `log_every` and `save_every` are steps, or below 1 a share of them. `find_batch_size` takes
    smaller batches when memory runs out, `compile` makes both encoders faster after a slow start.
    Dropout is off: in a training that reads a corpus once or a few times it costs time and gains
    nothing. Raises `DataError` for values that cannot be meant.
    """

    steps: int | None = None
    epochs: float = 3
    batch_size: int = 8
    accumulation: int = 1
    find_batch_size: bool = False
    learning_rate: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    max_grad_norm: float = 5.0
    dropout: float = 0.0
    freeze_words: bool = False
    kl_positions: Literal["masked", "all"] = "masked"
    chunk_size: int = 256
    temperature: float = 2.0
    soft: float = 5.0
    hard: float = 2.0
    cosine: float = 1.0
    log_every: float = 0.05
    save_every: float = 0.1
    compile: bool = False
    seed: int = 0

    def __post_init__(self):
        need_temperature(self.temperature)
        need_weights(soft=self.soft, hard=self.hard, cosine=self.cosine)
        if self.soft == self.hard == 0:
            raise DataError("No loss would train the head.", do="Give soft or hard a weight.")
        if self.kl_positions not in ("masked", "all"):
            raise DataError(f"kl_positions is {self.kl_positions!r}.", do="Take masked or all.")
        _need_possible(self)


def _need_possible(recipe: PretrainRecipe) -> None:
    """Nothing; raises `DataError` for what torch or transformers would refuse or misunderstand."""
    above_0, from_0, part = "a number above 0", "0 or more", "0 up to, but not, 1"
    steps = "a whole number of steps, or a share of them between 0 and 1"
    possible = {
        "steps": (recipe.steps is None or recipe.steps > 0, above_0),
        "batch_size": (recipe.batch_size > 0, above_0),
        "accumulation": (recipe.accumulation > 0, above_0),
        "chunk_size": (recipe.chunk_size > 0, above_0),
        "epochs": (0 < recipe.epochs < math.inf, above_0),
        "learning_rate": (0 < recipe.learning_rate < math.inf, above_0),
        "epsilon": (0 < recipe.epsilon < math.inf, above_0),
        "weight_decay": (0 <= recipe.weight_decay < math.inf, from_0),
        "max_grad_norm": (0 <= recipe.max_grad_norm < math.inf, from_0),
        "warmup": (0 <= recipe.warmup < 1, part),
        "dropout": (0 <= recipe.dropout < 1, part),
        "betas": (all(0 <= beta < 1 for beta in recipe.betas), part),
        "log_every": (_is_steps_or_share(recipe.log_every), steps),
        "save_every": (_is_steps_or_share(recipe.save_every), steps),
        "seed": (0 <= recipe.seed < 2**32, "a whole number from 0 to 4294967295"),
    }
    for name, (is_possible, allowed) in possible.items():
        if not is_possible:
            raise DataError(f"`{name}` is {getattr(recipe, name)}.", do=f"Take {allowed}.")


def _is_steps_or_share(value: float) -> bool:
    return 0 < value < 1 or (value >= 1 and value % 1 == 0)


class _ResumableTrainer(AtomicCheckpoints, DistillationTrainer):
    """A `DistillationTrainer` that keeps checkpoints and goes on from the newest."""


def distil_mlm(
    student: MaskedLM,
    teacher: MaskedLM | None,
    blocks: Dataset | IterableDataset,
    recipe: PretrainRecipe,
    *,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
    report_to: str | list[str] = "none",
    say: Callable[[str], object] = print,
) -> list[dict[str, float]]:
    """The log of training `student` in place: dicts with `step`, `loss` and what the trainer adds.

    `blocks` are `MaskedBlocks`, or a `MaskedStream` where the recipe has `steps`. Without a teacher
    the student learns from the hidden tokens alone. With `out`, checkpoints are kept in that
    folder, and with `resume` training goes on from the newest that is whole. Started by torchrun,
    each process reads its share of a step, `batch_size` blocks at once. Mode, dropout, attention
    and `requires_grad` of the student are afterwards as they were.

    Raises `CourseError` when the loss is no longer a number, naming step and part; and before
    anything is trained `ModelError` for models that do not fit each other, `DataError` for no
    blocks or blocks longer than the models' positions, and `OutputError` when `out` cannot be
    written to, holds a run with other settings or is in use.
    """
    need_a_pair(student, teacher, recipe)
    _check_blocks(blocks, recipe, student, teacher)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch, set_for_training(student, recipe):
        arguments = _arguments(
            recipe,
            output_dir=str(out or scratch),
            save_strategy="no" if out is None else "steps",
            report_to=report_to,
            disable_tqdm=not progress,
        )
        kind, options = DistillationTrainer, {}
        if out is not None:
            settings = _settings(student, teacher, blocks, recipe, arguments.world_size)
            kind, options = _ResumableTrainer, {"checkpoints": Checkpoints(out, settings, say=say)}
        trainer = kind(
            student,
            teacher,
            arguments,
            recipe=recipe,
            train_dataset=blocks,
            callbacks=callbacks,
            **options,
        )
        trainer.remove_callback(PrinterCallback)  # the log is returned, not printed
        with _compiled(student, trainer.teacher) if recipe.compile else nullcontext():
            trainer.train(resume_from_checkpoint=resume and out is not None)
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def _arguments(recipe: PretrainRecipe, **changes) -> TrainingArguments:
    machine = describe()
    arguments = TrainingArguments(
        max_steps=recipe.steps or -1,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        auto_find_batch_size=recipe.find_batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        adam_epsilon=recipe.epsilon,
        max_grad_norm=recipe.max_grad_norm,
        optim="adamw_torch" if machine.device == "mps" else "adamw_torch_fused",
        seed=recipe.seed,
        data_seed=recipe.seed,
        bf16=machine.dtype == "bfloat16",
        fp16=machine.dtype == "float16",
        use_cpu=machine.device == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=machine.device == "cuda",
        ddp_find_unused_parameters=False,  # every one is used
        logging_steps=recipe.log_every,
        logging_nan_inf_filter=False,  # it hides a NaN; the trainer stops there
        save_steps=recipe.save_every,
        **changes,
    )
    # Without torchrun one process uses one GPU: copies of the model in threads would each need the
    # hooks and the teacher.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _check_blocks(
    blocks: Dataset | IterableDataset,
    recipe: PretrainRecipe,
    *models: MaskedLM | None,
) -> None:
    first = next(iter(blocks), None)
    if first is None:
        raise DataError("There is no block to train on.", do="Give more text, or shorter blocks.")
    length = len(first["input_ids"])
    positions = min(model.config.max_position_embeddings for model in models if model is not None)
    if length > positions:
        raise DataError(
            f"The blocks have {length} tokens; the models read {positions}.",
            do=f"Make them again: to_blocks(…, length={positions}).",
        )
    if recipe.steps is None and not hasattr(blocks, "__len__"):
        raise DataError("A stream has no end.", do="Give the recipe a number of steps.")


def _settings(
    student: MaskedLM,
    teacher: MaskedLM | None,
    blocks: Dataset | IterableDataset,
    recipe: PretrainRecipe,
    n_processes: int,
) -> dict[str, object]:
    """What a run is, for its checkpoints: with other settings they are refused.

    The student's weights are not in it, because a run that is stopped has changed them.
    """
    return {
        "student": _config(student),
        "teacher": teacher and _config(teacher) | {"weights": _digest(teacher)},
        "blocks": getattr(blocks, "fingerprint", "a stream"),
        "recipe": asdict(recipe),
        "processes": n_processes,
    }


def _config(model: MaskedLM) -> dict[str, object]:
    """The configuration, without what says where and by what it was made."""
    changing = ("_name_or_path", "transformers_version", "dtype")
    config = model.config.to_dict()
    return {name: value for name, value in config.items() if name not in changing}


def _digest(model: MaskedLM) -> str:
    """16 hexadecimal digits that change with any weight."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _compiled(*models: MaskedLM | None) -> Iterator[None]:
    """Nothing; the encoders are compiled inside the block. Heads see another number of tokens in
    every batch, and would be compiled again and again."""
    encoders = [model.base_model for model in models if model is not None]
    for encoder in encoders:
        encoder.compile()
    try:
        yield
    finally:
        for encoder in encoders:
            encoder._compiled_call_impl = None
