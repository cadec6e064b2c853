"""Students of several depths: what each would cost, which fit a budget, and which one to keep."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from course_utils.compress.vocabulary import (
    Trimmed,
    tokens_to_keep,
    tokens_to_keep_for_new_texts,
    trim_vocabulary,
)
from course_utils.data.encoding import EncodedTexts
from course_utils.errors import CourseError
from course_utils.measure.accuracy import over_seeds_and_texts
from course_utils.measure.size import size_mb
from course_utils.measure.speed import speed
from course_utils.models.student import student_from_teacher
from course_utils.ship.onnx import to_onnx
from course_utils.ship.runtime import OnnxClassifier


@dataclass(frozen=True)
class Cost:
    """What a student of this depth takes as it is shipped, in int8; training changes none of it."""

    layers: int
    size_mb: float
    latency_ms: float  # p50, one text at a time

    def __str__(self) -> str:
        return f"{layers_in_words(self.layers)}: {self.size_mb:.1f} MB, {self.latency_ms:.2f} ms"


@dataclass(frozen=True)
class Choice:
    """The depth to keep, which of its seeds (from 0), and how each depth did on dev.

    An entry of `depths` has `layers`, `accuracy` (one for each seed), and `behind`: by how much the
    best depth is better, as a 95 % interval.
    """

    layers: int
    seed: int
    depths: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """What is said about the choice, a line for every depth."""
        lines = []
        for each in self.depths:
            mean = float(np.mean(each["accuracy"]))
            low, high = each["behind"]
            line = f"  {layers_in_words(each['layers'])}: {mean:.1%} right on dev"
            if low or high:
                line += f", {low:.1%} to {high:.1%} behind the best"
            lines.append(line + ", kept" * (each["layers"] == self.layers))
        return lines


def depths_to_try(teacher_layers: int, layers: int | None, *, budgets: bool) -> tuple[int, ...]:
    """The students' depths, deepest first: `layers`, by default half the teacher's.

    With budgets every depth below is a candidate, too.
    """
    most = layers or max(1, teacher_layers // 2)
    return tuple(range(most, 0, -1)) if budgets else (most,)


def layers_in_words(n: int) -> str:
    """`1 layer`, `2 layers`."""
    return f"{n} layer{'s' * (n > 1)}"


def vocabulary(
    tokenizer: PreTrainedTokenizerBase, texts: EncodedTexts, new: EncodedTexts, *, tight: bool
) -> list[int] | None:
    """The tokens that a student keeps; None, all of them, if the vocabulary is no WordPiece.

    Those of its texts, and of others enough for `new` ones, or if room is tight only a few.
    """
    if not is_wordpiece(tokenizer):
        return None
    if tight:
        return tokens_to_keep(tokenizer, texts.input_ids)
    return tokens_to_keep_for_new_texts(tokenizer, texts.input_ids, new.input_ids)


def untrained(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    keep: list[int] | None,
    layers: int,
) -> Trimmed:
    """A student of this depth made of the teacher, with the tokens `keep`, or all of them."""
    student = student_from_teacher(teacher, layers=layers)
    if keep is None:
        return Trimmed(student, tokenizer, torch.arange(student.config.vocab_size))
    return trim_vocabulary(student, tokenizer, keep)


def is_wordpiece(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's pieces are those of BERT, the kind whose vocabulary is trimmed."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and json.loads(backend.to_str())["model"]["type"] == "WordPiece"


def measure_costs(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    keep: list[int] | None,
    depths: Sequence[int],
    *,
    timed: Sequence[str],
    progress: bool = True,
) -> list[Cost]:
    """What each depth would take: made, exported to int8 and timed on `timed`, all in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for layers in tqdm(depths, desc="sizes", unit="model", disable=not progress):
            source, int8 = Path(scratch, f"{layers}"), Path(scratch, f"{layers}_int8")
            model, own_tokenizer, _ = untrained(teacher, tokenizer, keep, layers)
            model.save_pretrained(source)
            own_tokenizer.save_pretrained(source)
            to_onnx(source, int8, int8=True)
            folders.append(int8)
        times = speed([OnnxClassifier(folder) for folder in folders], timed, progress=progress)
        return [
            Cost(layers, size_mb(folder), time["latency_ms_p50"])
            for layers, folder, time in zip(depths, folders, times, strict=True)
        ]


def within(
    costs: Sequence[Cost], budget_mb: float | None, budget_ms: float | None
) -> tuple[int, ...]:
    """The depths that keep to the budgets; raises `CourseError` naming the nearest if none does."""

    def excess(cost: Cost) -> float:
        return max(
            cost.size_mb / budget_mb if budget_mb else 0.0,
            cost.latency_ms / budget_ms if budget_ms else 0.0,
        )

    if fitting := tuple(cost.layers for cost in costs if excess(cost) <= 1):
        return fitting
    budgets = ((budget_mb, "MB"), (budget_ms, "ms"))
    wanted = " and ".join(f"{most:g} {unit}" for most, unit in budgets if most)
    raise CourseError(
        f"No student keeps to {wanted}. Each takes, in int8:\n"
        + "\n".join(f"    {cost}" for cost in costs),
        do=f"The nearest has {min(costs, key=excess)}: give budgets above that, or a smaller "
        "--teacher.",
    )


def choose(right: Mapping[int, np.ndarray]) -> Choice:
    """The smallest depth that cannot be told from the best, and its best seed.

    `right[depth]` is (seeds, N), which of the N dev texts each seed's student has right. Two depths
    can be told apart when the 95 % interval of the difference of their accuracies, taken text by
    text over the means of the seeds, lies above zero.
    """
    means = {depth: rows.mean(0) for depth, rows in right.items()}  # (N,): share of the seeds
    best = max(sorted(means), key=lambda depth: means[depth].mean())
    behind = {depth: _interval(means[best] - means[depth]) for depth in means}
    smallest = min(depth for depth, (low, _) in behind.items() if low <= 0)
    depths = [
        {"layers": depth, "accuracy": rows.mean(1).tolist(), "behind": list(behind[depth])}
        for depth, rows in right.items()
    ]
    return Choice(smallest, int(np.argmax(right[smallest].mean(1))), depths)


def _interval(gains: np.ndarray) -> tuple[float, float]:
    mean, half = over_seeds_and_texts(gains)
    return mean - half, mean + half
