"""The trainer of a distilled masked-language model: DistilBERT's loss, computed where it looks.

Sanh et al. 2019, "DistilBERT, a distilled version of BERT". A head, which with all its words is a
third of the arithmetic, sees the tokens with a label alone; or all tokens, some hundred at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from course_utils.distill.chunked import chunked_soft_kl
from course_utils.distill.losses import (
    hidden_cosine,
    masked_lm,
    mean_over_counted,
    soft_kl,
)
from course_utils.distill.refusals import NotFiniteError, need_finite
from course_utils.distill.throughput import (
    ATTENDED,
    LABELLED,
    Meter,
    arithmetic,
    count,
    matrix_rate,
)
from course_utils.distill.trainer import TaskTrainer
from course_utils.errors import ModelError
from course_utils.machine import describe
from course_utils.models.mlm import MaskedLM, head_sees_only, masked_lm_head

if TYPE_CHECKING:
    from course_utils.distill.pretrain import PretrainRecipe


class DistillationTrainer(TaskTrainer):
    """A `transformers.Trainer` whose loss is DistilBERT's, with the settings of a `PretrainRecipe`.

    A batch holds `input_ids`, `labels` (-100 = not counted) and, where there is padding,
    `attention_mask`, all (B, S). Without a teacher the loss is its masked-LM part alone. Of the
    teacher a copy is taken, in eval mode and in the machine's fast data type: the caller's own
    stays as it is, and the copy has half its bytes. It is no part of what is trained or saved.

    A line of the log has `total`, its parts `soft`, `masked_lm` and `cosine`, means over the tokens
    each of them counted since the line before, and what `throughput.Meter` reads. Raises
    `ModelError` for models that are no masked-language models or do not fit each other.
    """

    def __init__(
        self,
        student: MaskedLM,
        teacher: MaskedLM | None,
        arguments: TrainingArguments,
        *,
        recipe: PretrainRecipe,
        **kwargs,
    ):
        need_a_pair(student, teacher, recipe)
        super().__init__(student, arguments, recipe=recipe, **kwargs)
        self.model_accepts_loss_kwargs = True  # the loss is divided by what the whole step counts
        self.teacher = None if teacher is None else _fast_copy(teacher, arguments.device)
        self.weights = {"soft": recipe.soft, "masked_lm": recipe.hard, "cosine": recipe.cosine}
        soft_at = ATTENDED if recipe.kl_positions == "all" else LABELLED
        self.counted = {"soft": soft_at, "masked_lm": LABELLED, "cosine": ATTENDED}
        machine = describe()
        self.meter = Meter(
            arithmetic(student, teacher, heads_at=LABELLED if teacher is None else soft_at),
            matrix_rate(machine.dtype, machine.device) * arguments.world_size,
        )
        self.sums: dict[str, Tensor] = {}  # of each part over its tokens, since the last line
        self.add_callback(_Beginnings(self))

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of one optimizer step, and what it counts over all processes, (4,) int64."""
        self.meter.start()
        batches = list(islice(epoch_iterator, num_batches))
        counts = sum(map(count, batches), torch.zeros(4, dtype=torch.int64, device=device))
        counts = self.accelerator.reduce(counts, "sum")
        self.meter.add(counts)
        return batches, counts

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        counts = count(inputs) if num_items_in_batch is None else num_items_in_batch
        counts = counts / self.args.world_size  # the processes' gradients are averaged
        texts = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        labels = inputs["labels"].flatten()  # (B·S,)
        labelled = (labels != -100).nonzero()[:, 0]  # (N,)
        with head_sees_only(self.model, labelled) as seen:
            outputs = model(**texts)  # logits (N, V)
        with _naming("masked_lm"):
            lm = masked_lm(outputs.logits, labels[labelled], n_counted=counts[LABELLED])
        parts = {"masked_lm": lm}
        if self.teacher is not None:
            parts |= self._compare(texts, labelled, seen[0], outputs.logits, counts)
        if model.training:
            for name, part in parts.items():
                summed = part.detach() * counts[self.counted[name]]
                self.sums[name] = self.sums.get(name, 0) + summed
        loss = sum(self.weights[name] * part for name, part in parts.items())
        return (loss, outputs) if return_outputs else loss

    def _compare(
        self,
        texts: dict[str, Tensor],
        labelled: Tensor,
        hidden: Tensor,
        logits: Tensor,
        counts: Tensor,
    ) -> dict[str, Tensor]:
        """The parts that need the teacher; `hidden` (B·S, H) and `logits` (N, V) are the student's.

        A part with weight 0 is left out, so that a narrower student can do without the cosine.
        """
        with torch.no_grad():
            target = self.teacher.base_model(**texts).last_hidden_state.flatten(0, 1)  # (B·S, H')
        here = target[labelled]  # (N, H')
        if "attention_mask" in texts:
            attended = texts["attention_mask"].flatten().nonzero()[:, 0]  # (M,)
            hidden, target = hidden[attended], target[attended]
        parts = {}
        if self.weights["cosine"]:
            with _naming("cosine"):
                parts["cosine"] = hidden_cosine(hidden, target, n_counted=counts[ATTENDED])
        if self.weights["soft"]:
            with _naming("soft"):
                if self.recipe.kl_positions == "all":
                    parts["soft"] = self._soft_everywhere(hidden, target, counts[ATTENDED])
                else:
                    parts["soft"] = self._soft_at_labels(logits, here, counts[LABELLED])
        return parts

    def _soft_at_labels(self, logits: Tensor, target: Tensor, n_labelled: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_logits = masked_lm_head(self.teacher)(target)  # (N, V)
        kl = soft_kl(logits, teacher_logits, temperature=self.recipe.temperature)  # (N,)
        loss = mean_over_counted(kl, n_counted=n_labelled)
        return need_finite(loss, student_logits=logits, teacher_logits=teacher_logits)

    def _soft_everywhere(self, hidden: Tensor, target: Tensor, n_attended: Tensor) -> Tensor:
        with self.accelerator.autocast():
            return chunked_soft_kl(
                hidden,
                target,
                masked_lm_head(self.model),
                masked_lm_head(self.teacher),
                temperature=self.recipe.temperature,
                chunk_size=self.recipe.chunk_size,
                n_counted=n_attended,
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # not the summary at the end
            logs = logs | self._since_last_line()
        super().log(logs, start_time)

    def _since_last_line(self) -> dict[str, float]:
        sums = self.accelerator.reduce(torch.stack(list(self.sums.values())), "sum").tolist()
        counts = self.meter.counts.tolist()
        parts = {
            name: summed / max(1, counts[self.counted[name]])
            for name, summed in zip(self.sums, sums, strict=True)
        }
        total = sum(self.weights[name] * part for name, part in parts.items())
        line = {"total": total} | parts | self.meter.read()
        self.forget()
        return line

    def forget(self) -> None:
        """What was summed for the next line of the log is dropped."""
        self.sums.clear()
        self.meter.reset()


def need_a_pair(student: MaskedLM, teacher: MaskedLM | None, recipe: PretrainRecipe) -> None:
    """Nothing; raises `ModelError` for no masked-language models, or two that cannot be compared.

    Without a teacher there is nothing to compare. Widths may differ where the cosine has weight 0.
    """
    for whose, model in (("student", student), ("teacher", teacher)):
        if model is not None and not isinstance(model, MaskedLM):
            raise ModelError(
                f"The {whose} is a {type(model).__name__}.",
                do="Take a BertForMaskedLM or a DistilBertForMaskedLM.",
            )
    if teacher is None:
        return
    ours, theirs = student.config, teacher.config
    if ours.vocab_size != theirs.vocab_size:
        raise ModelError(
            f"The student knows {ours.vocab_size} words, the teacher {theirs.vocab_size}.",
            do="They are compared word by word: take a student made from this teacher.",
        )
    if recipe.cosine and ours.hidden_size != theirs.hidden_size:
        raise ModelError(
            f"The student's hidden states have {ours.hidden_size} numbers, the teacher's "
            f"{theirs.hidden_size}.",
            do="Set cosine=0 in the recipe, or take a student as wide as its teacher.",
        )


class _Beginnings(TrainerCallback):
    """Says to a trainer and its data what begins; a training can begin again with smaller batches.

    Between several processes, and after a resume, accelerate tells the epoch to the sampler only.
    """

    def __init__(self, trainer: DistillationTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.forget()

    def on_epoch_begin(self, args, state, control, *, train_dataloader, **kwargs):
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))


@contextmanager
def _naming(part: str) -> Iterator[None]:
    """Nothing; a loss that is not finite inside the block says which part it is."""
    try:
        yield
    except NotFiniteError as error:
        what = f"The part {part} of the loss is not finite. {error.what}"
        raise NotFiniteError(what, where=error.where, do=error.do) from error


def _fast_copy(teacher: MaskedLM, device: torch.device) -> MaskedLM:
    machine = describe()
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
    if machine.device == "cpu":
        # On a CPU the plain products take half the time of the fused kernel in bfloat16, and as
        # much in float32 (measured with 8 texts of 128 tokens).
        teacher.set_attn_implementation("eager")
    return teacher.to(device, getattr(torch, machine.dtype))
