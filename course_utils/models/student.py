"""A student made from its teacher: fewer layers, and at the start the weights are the teacher's."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from course_utils.errors import ModelError
from course_utils.models.distilbert import distilbert_class, distilbert_config, name_in_bert
from course_utils.models.transfer import LAYER, StudentPlan, check_teacher, in_a_line, tensors

# The choice in the DistilBERT authors' code.
_KNOWN_MAPS = {(12, 6): (0, 2, 4, 7, 9, 11)}


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
    teacher: PreTrainedModel,
    *,
    layers: int | Sequence[int],
    hidden: int | None = None,
    keep_token_types: bool = True,
) -> PreTrainedModel:
    """A new model that keeps only the teacher's encoder layers `layers`, with the teacher's head.

    `layers` is a number of layers (see `layer_map`) or the teacher's layer numbers themselves, from
    0, in the student's order: (3, 0) is allowed, and another student than (0, 3). `plan_student`
    says where each weight comes from. The teacher is left as it was; the student has its data
    type, device and mode (train or eval). How DistilBERT's student was made: Sanh et al. 2019,
    section 3.

    `keep_token_types=False` makes a DistilBERT of a BERT: no token types and no pooler, so that
    next-sentence prediction is dropped and a classifier of whole texts is new. The first token type
    is added to every position: on single texts a student of all layers still computes what its
    teacher does. The original code drops the types without that.

    `hidden` makes every layer narrower: the first `hidden` coordinates are kept, and in proportion
    the first heads and the first neurons. That is a start, not a smaller copy: what the other
    coordinates added to each product is gone, and LayerNorm takes its mean and variance over what
    is left. The same coordinates are kept everywhere, as in Xu et al. 2024, "Initializing models
    with larger ones", section 3. The alternative, a projection onto the leading singular vectors
    of the word embeddings, kept less of MiniLM at two thirds of its width, as much at half and more
    at a third, and learned more slowly at all three: LayerNorm has a weight per coordinate, and a
    rotation mixes coordinates.

    Raises `ModelError` for layers the teacher lacks or that are named twice, a `hidden` that is no
    multiple of the head size or not smaller than the teacher's, a head that DistilBERT has not,
    weights that do not fit the teacher's configuration, and a model that is no encoder with
    `encoder.layer.N` as BERT's is: a decoder, an encoder-decoder.
    """
    plan = plan_student(teacher, layers=layers, hidden=hidden, keep_token_types=keep_token_types)
    student = plan.kind(plan.config).to(dtype=teacher.dtype, device=teacher.device)
    ours, theirs = student.state_dict(), teacher.state_dict()
    with torch.no_grad():
        for name, source in (plan.copied | plan.narrowed).items():
            ours[name].copy_(_first(theirs[source], ours[name].shape))
        for name, (positions, types) in plan.folded.items():
            ours[name].copy_(_first(theirs[positions] + theirs[types][0], ours[name].shape))
    return student.train(teacher.training)


def plan_student(
    teacher: PreTrainedModel,
    *,
    layers: int | Sequence[int],
    hidden: int | None = None,
    keep_token_types: bool = True,
) -> StudentPlan:
    """What `student_from_teacher` would do with each tensor of both models; no student is made.

    Every tensor of the student is in exactly one of `copied`, `folded`, `narrowed` and `new`, and
    every tensor of the teacher is used there or in `dropped`. One that is folded and narrowed
    is among the folded. Only names, shapes and the configuration are read, so that a
    teacher on the meta device will do. Raises `ModelError` as `student_from_teacher` does.
    """
    check_teacher(teacher)
    layers = _chosen(layers, teacher.config.num_hidden_layers)
    kind, config = type(teacher), copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    if hidden is not None:
        _make_narrower(config, hidden)
    if not keep_token_types:
        kind, config = distilbert_class(teacher), distilbert_config(config)
    with torch.device("meta"):
        ours, _ = tensors(kind(config))
    theirs, own_name = tensors(teacher)
    copied, folded, narrowed, new = {}, {}, {}, []
    for name, tensor in ours.items():
        in_teacher = name if keep_token_types else name_in_bert(name, kind)
        source = in_teacher and own_name.get(_in_layer(in_teacher, layers))
        if source is None:
            new.append(name)
        elif not keep_token_types and "position_embeddings" in source:
            folded[name] = (source, source.replace("position", "token_type"))
        elif tensor.shape != theirs[source].shape:
            narrowed[name] = source
        else:
            copied[name] = source
    used = {*copied.values(), *narrowed.values(), *(s for pair in folded.values() for s in pair)}
    return StudentPlan(
        kind=kind,
        config=config,
        teacher=in_a_line(type(teacher), teacher.config),
        copied=copied,
        folded=folded,
        narrowed=narrowed,
        new=tuple(new),
        dropped=tuple(name for name in theirs if name not in used),
        student_sizes={name: tensor.numel() for name, tensor in ours.items()},
        teacher_sizes={name: tensor.numel() for name, tensor in theirs.items()},
    )


def _chosen(layers: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """The layer numbers; raises `ModelError` unless they are the teacher's, each at most once."""
    if _is_int(layers):
        return layer_map(depth, int(layers))
    wanted = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    if (
        not wanted
        or not all(map(_is_int, wanted))
        or len(set(wanted)) < len(wanted)
        or not set(wanted) <= set(range(depth))
    ):
        raise ModelError(
            f"A student cannot be made of layers {wanted} of this teacher.",
            do=f"Choose from 0 to {depth - 1}, each once: the teacher has {depth} layers.",
        )
    return tuple(map(int, wanted))


def _make_narrower(config: PreTrainedConfig, hidden: int) -> None:
    """Nothing; the configuration has `hidden` coordinates, and in proportion heads and neurons."""
    was, n_heads = config.hidden_size, config.num_attention_heads
    head = was // n_heads
    if not _is_int(hidden) or hidden % head or not 0 < hidden < was:
        raise ModelError(
            f"A student of this teacher cannot have a hidden size of {hidden!r}.",
            do=f"Take a multiple of the head size, {head}, below the teacher's {was}; without "
            "`hidden` the student is as wide as its teacher.",
        )
    if hasattr(config, "embedding_size"):
        raise ModelError(
            f"The embeddings of the {config.model_type} family have a size of their own.",
            do="Leave `hidden` away; a BERT or RoBERTa can be made narrower.",
        )
    config.hidden_size = int(hidden)
    config.num_attention_heads = int(hidden) // head
    config.intermediate_size = config.intermediate_size * int(hidden) // was


def _in_layer(name: str, layers: Sequence[int]) -> str:
    """The name with the teacher's layer number, `layers[i]`, in place of the student's, i."""
    return LAYER.sub(lambda found: f"encoder.layer.{layers[int(found[1])]}.", name)


def _first(weight: Tensor, shape: torch.Size) -> Tensor:
    """The corner of `weight` that has this shape: the first rows, the first columns."""
    return weight[tuple(map(slice, shape))]


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_depth(teacher_layers: int, student_layers: int) -> None:
    if not 1 <= student_layers <= teacher_layers:
        raise ModelError(
            f"A student of a {teacher_layers}-layer teacher has 1 to {teacher_layers} layers, "
            f"not {student_layers}."
        )
