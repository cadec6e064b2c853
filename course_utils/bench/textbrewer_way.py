"""Distillation with TextBrewer, as its documentation shows it. Installed for the benchmark only."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEMPERATURE = 8  # that of its documentation, and of ours


def distil(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    matched: Sequence[int],
    device: str,
) -> None:
    """Nothing; the student has learned, in float32, from the teacher's logits and hidden states.

    The objective is ours: the soft loss with T² and, at layer k of the student, the squared
    distance to layer `matched[k - 1]` of the teacher. TextBrewer measures it at every token and
    runs the teacher at every step: its distiller of hidden states keeps nothing of the teacher's.
    Optimizer, schedule and clipping are those of a `transformers.Trainer` without settings.
    """
    import torch
    from torch.utils.data import DataLoader
    from transformers import DataCollatorWithPadding, get_linear_schedule_with_warmup

    with warnings.catch_warnings():  # its source is older than the Python that reads it
        warnings.simplefilter("ignore")
        from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    def seen(batch, outputs) -> dict:
        return {
            "logits": outputs.logits,
            "hidden": outputs.hidden_states,
            "inputs_mask": batch["attention_mask"],
        }

    pad = DataCollatorWithPadding(tokenizer)
    rows = [tokenizer(text, truncation=True, max_length=128) for text in texts]
    loader = DataLoader(
        rows, batch_size, shuffle=True, collate_fn=lambda batch: dict(pad(batch))
    )  # it takes a plain dict alone
    matches = [
        {"layer_T": theirs, "layer_S": ours, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
        for ours, theirs in enumerate(matched, start=1)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        distiller = GeneralDistiller(
            TrainingConfig(output_dir=scratch, device=device, ckpt_epoch_frequency=epochs),
            DistillationConfig(
                temperature=TEMPERATURE,
                kd_loss_weight=TEMPERATURE**2,  # its loss is without T²
                intermediate_matches=matches,
            ),
            teacher.to(device),
            student.to(device),
            seen,
            seen,
        )
        with distiller:
            distiller.train(
                torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=0.0),
                loader,
                num_epochs=epochs,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args={
                    "num_warmup_steps": 0,
                    "num_training_steps": epochs * len(loader),
                },
                max_grad_norm=1.0,
                output_hidden_states=True,
            )
