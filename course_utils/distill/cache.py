"""What the teacher says about each text, computed once, not once per epoch."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from course_utils.data.encoding import EncodedTexts, pad
from course_utils.errors import ModelError
from course_utils.machine import describe


@torch.no_grad()
def teacher_signals(
    teacher: PreTrainedModel,
    texts: EncodedTexts,
    *,
    hidden_layers: tuple[int, ...] = (),
    batch_size: int = 64,
    progress: bool = True,
) -> dict[str, Tensor]:
    """`teacher_logits` (N, C) and, if asked for, `teacher_hidden` (N, K, H), in the texts' order.

    `teacher_hidden` holds the [CLS] vectors after the K layers `hidden_layers` (1 is the first
    encoder layer, 0 the embeddings), as float16; logits are float32. The teacher is not touched: a
    copy of it runs in eval mode, without gradient, in the machine's fast data type, over batches of
    texts of like length. Raises `ModelError` for layers the teacher does not have.
    """
    depth = teacher.config.num_hidden_layers
    if any(not 0 <= layer <= depth for layer in hidden_layers):
        raise ModelError(
            f"Hidden states after layers {hidden_layers} are not in this teacher.",
            do=f"Choose from 0 (the embeddings) to {depth} (the last layer).",
        )
    machine = describe()
    teacher = copy.deepcopy(teacher).eval().to(machine.device, getattr(torch, machine.dtype))
    order = sorted(range(len(texts)), key=lambda i: len(texts.input_ids[i]))
    logits = torch.empty(len(texts), teacher.config.num_labels)
    hidden = torch.empty(
        len(texts), len(hidden_layers), teacher.config.hidden_size, dtype=torch.float16
    )
    with tqdm(total=len(order), desc="teacher", unit="text", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = pad([texts.input_ids[i] for i in rows], teacher.config.pad_token_id)
            batch = {name: tensor.to(machine.device) for name, tensor in batch.items()}
            output = teacher(**batch, output_hidden_states=bool(hidden_layers))
            logits[rows] = output.logits.float().cpu()
            for k, layer in enumerate(hidden_layers):
                hidden[rows, k] = output.hidden_states[layer][:, 0].to(torch.float16).cpu()
            bar.update(len(rows))
    signals = {"teacher_logits": logits}
    if hidden_layers:
        signals["teacher_hidden"] = hidden
    return signals
