"""Which of a student's tensors comes from which of its teacher's, with none left unaccounted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from course_utils.errors import ModelError

LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


@dataclass(frozen=True, repr=False)
class StudentPlan:
    """What becomes of every tensor: the student's are copied, folded, narrowed or new, and the
    teacher's are used or dropped.

    Names are those of the models' `state_dict`s. A tensor that two modules share, as a decoder and
    the word embeddings do, has the first of its names and is counted once. `print(plan)` shows a
    table: a line per module, and how many numbers it has in the student and in the teacher.
    """

    kind: type[PreTrainedModel]  # the student's class
    config: PreTrainedConfig  # the student's
    teacher: str  # its class and sizes, for the table
    copied: dict[str, str]  # the student's name -> the teacher's
    folded: dict[str, tuple[str, str]]  # -> the teacher's positions, and its types, of which row 0
    narrowed: dict[str, str]  # -> the teacher's, which is larger
    new: tuple[str, ...]  # the student's: random, to be trained
    dropped: tuple[str, ...]  # the teacher's
    student_sizes: dict[str, int]  # how many numbers each tensor has
    teacher_sizes: dict[str, int]

    def __repr__(self) -> str:
        ours, theirs = Counter(), Counter()
        for what, name, source in self._origins():
            row = (what, _module(name), _module(source))
            ours[row] += self.student_sizes.get(name, 0)
            theirs[row] += self.teacher_sizes.get(source, 0)
        rows = [("", in_a_line(self.kind, self.config), self.teacher, "student's", "teacher's")]
        rows += [(*row, _spaced(ours[row]), _spaced(theirs[row])) for row in ours]
        rows += [("in all", "", "", _spaced(ours.total()), _spaced(theirs.total()))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        line = "  ".join(f"{{:{side}{n}}}" for side, n in zip("<<<>>", widths, strict=True))
        return "\n".join(line.format(*row) for row in rows)

    def _origins(self) -> Iterator[tuple[str, str, str]]:
        """What became of it, the student's name and the teacher's: every tensor of both once."""
        for name in self.student_sizes:
            if name in self.folded:
                positions, types = self.folded[name]
                yield "folded", name, positions
                yield "+ row 0", "", types
            elif name in self.copied:
                yield "copied", name, self.copied[name]
            elif name in self.narrowed:
                yield "narrowed", name, self.narrowed[name]
            else:
                yield "new", name, ""
        for name in self.dropped:
            yield "dropped", "", name


def tensors(model: PreTrainedModel) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model's tensors by name, each once, and for every name it has the one it is under there.

    A shared tensor is under the first of its names.
    """
    everything, first = model.state_dict(keep_vars=True), {}
    own_name = {name: first.setdefault(id(tensor), name) for name, tensor in everything.items()}
    return {name: everything[name] for name in first.values()}, own_name


def check_teacher(teacher: PreTrainedModel) -> None:
    """Nothing; raises `ModelError` unless it is an encoder with `encoder.layer.N`, as BERT is."""
    what, do = type(teacher).__name__, "Take a teacher built like BERT: BERT, RoBERTa or ELECTRA."
    if not isinstance(teacher, PreTrainedModel):
        raise ModelError(f"A {what} where a transformers model is needed.", do=do)
    if getattr(teacher.config, "is_encoder_decoder", False):
        raise ModelError(f"{what} is an encoder with a decoder; students here are encoders.", do=do)
    if any(getattr(module, "is_causal", False) for module in teacher.modules()):
        raise ModelError(f"{what} is a decoder: its tokens see only those before them.", do=do)
    theirs, _ = tensors(teacher)
    if not any(LAYER.search(name) for name in theirs):
        raise ModelError(f"{what} has no encoder.layer.N, so its layers cannot be chosen.", do=do)
    with torch.device("meta"):
        expected, _ = tensors(type(teacher)(teacher.config))
    for name, tensor in theirs.items():
        if name in expected and tensor.shape != expected[name].shape:
            raise ModelError(
                f"The teacher's {name} is {tuple(tensor.shape)}; its configuration says "
                f"{tuple(expected[name].shape)}.",
                do="Set in teacher.config what was changed in the model, num_labels for one.",
            )


def in_a_line(kind: type[PreTrainedModel], config: PreTrainedConfig) -> str:
    """The class of a model and its sizes."""
    return f"{kind.__name__}, {config.num_hidden_layers} x {config.hidden_size}"


def _module(name: str) -> str:
    """The layer that a tensor is in; outside the layers, its module."""
    found = re.match(r".*\.layer\.\d+", name)
    return found[0] if found else name.rpartition(".")[0]


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ") if number else ""
