"""A student made from its teacher: fewer layers, and at the start every weight is the teacher's."""

from __future__ import annotations

import copy
import re

import torch
from transformers import PreTrainedModel

from course_utils.errors import ModelError

# The choice in the DistilBERT authors' code.
_KNOWN_MAPS = {(12, 6): (0, 2, 4, 7, 9, 11)}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


def layer_map(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """The teacher's layers (counted from 0) that a student of `student_layers` starts from.

    For 12 -> 6 they are those of the original DistilBERT; otherwise they are spread evenly and hold
    both the first and the last. Raises `ModelError` for fewer than 1 or more than `teacher_layers`.
    """
    _check_depth(teacher_layers, student_layers)
    known = _KNOWN_MAPS.get((teacher_layers, student_layers))
    if known is not None:
        return known
    if student_layers == 1:
        return (0,)
    step = (teacher_layers - 1) / (student_layers - 1)
    return tuple(round(i * step) for i in range(student_layers))


def matched_layers(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """For each student layer the teacher layer (counted from 1) whose output it is to match.

    Evenly spread, so that the last matches the last: a student of half the depth has to do in one
    layer what its teacher does in two. Jiao et al. 2020 (TinyBERT), the "uniform" map. Raises
    `ModelError` unless the student has 1 to `teacher_layers` layers.
    """
    _check_depth(teacher_layers, student_layers)
    return tuple(round((i + 1) * teacher_layers / student_layers) for i in range(student_layers))


def student_from_teacher(
    teacher: PreTrainedModel, *, layers: int | tuple[int, ...]
) -> PreTrainedModel:
    """A new model of the teacher's class that keeps only the encoder layers `layers`.

    `layers` is a number of layers (see `layer_map`) or the teacher's layer numbers themselves,
    from 0, in the student's order. Embeddings, the kept layers, pooler and head are copied by
    name; the teacher is left as it was. The student starts in the teacher's mode (train or eval).
    Raises `ModelError` for layers the teacher does not have or that are named twice, and for a
    model whose layers are not called `encoder.layer.N` as BERT's are.
    The way DistilBERT's student was made: Sanh et al. 2019, section 3.
    """
    depth = teacher.config.num_hidden_layers
    if isinstance(layers, int):
        layers = layer_map(depth, layers)
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(depth)):
        raise ModelError(
            f"A student cannot be made of layers {tuple(layers)} of this teacher.",
            do=f"Choose from 0 to {depth - 1}, each once: the teacher has {depth} layers.",
        )
    weights = teacher.state_dict()
    if not any(_LAYER.search(name) for name in weights):
        raise ModelError(
            f"{type(teacher).__name__} has no encoder.layer.N, so its layers cannot be chosen.",
            do="Take a teacher built like BERT: BERT, RoBERTa or ELECTRA.",
        )
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    student = type(teacher)(config).to(dtype=teacher.dtype, device=teacher.device)
    student.train(teacher.training)
    with torch.no_grad():
        for name, weight in student.state_dict().items():
            weight.copy_(weights[_LAYER.sub(lambda found: _teacher_name(found, layers), name)])
    return student


def _check_depth(teacher_layers: int, student_layers: int) -> None:
    if not 1 <= student_layers <= teacher_layers:
        raise ModelError(
            f"A student of a {teacher_layers}-layer teacher has 1 to {teacher_layers} layers, "
            f"not {student_layers}."
        )


def _teacher_name(found: re.Match[str], layers: tuple[int, ...]) -> str:
    return f"encoder.layer.{layers[int(found[1])]}."
