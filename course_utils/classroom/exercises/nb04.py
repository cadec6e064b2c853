"""Notebook 04, Building the student: which layers, which names, token types, size, agreement."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from course_utils.classroom.checks import exercise

# Which layers


def _depths() -> Iterator[tuple[int, int]]:
    yield from [(12, 6), (12, 4), (24, 6), (24, 12), (6, 2), (6, 6), (12, 1)]


@exercise(
    cases=_depths,
    hints=(
        "Layer 0 of the student is the teacher's layer 0, and its last is the teacher's last. From "
        "first to last are n_student - 1 steps. How long is one?",
        "A step is (n_teacher - 1) / (n_student - 1) layers long; after i steps you stand at i "
        "times that. `round` gives the nearest layer.",
        "With one layer there is no step, and a division by zero: return (0,) before it.",
    ),
)
def spread_layers(n_teacher: int, n_student: int) -> tuple[int, ...]:
    """The teacher's layers, from 0, that a student keeps: evenly from the first to the last.

    A student of one layer keeps the first.
    """
    if n_student == 1:
        return (0,)
    step = (n_teacher - 1) / (n_student - 1)
    return tuple(round(i * step) for i in range(n_student))


@spread_layers.mistake(
    "You take every k-th layer from 0 on, and the teacher's last layer is not among them. Its head "
    "knows nothing but what the last layer hands it. Between n layers there are n - 1 steps, for "
    "the teacher as for the student: (n_teacher - 1) / (n_student - 1)."
)
def every_kth(n_teacher, n_student):
    return tuple(range(0, n_teacher, n_teacher // n_student))


@spread_layers.mistake(
    "The last layer of each group: the teacher's last is there, and its first is not. That is the "
    "map by which hidden states are *matched*. To *start* from, keep both ends."
)
def ends_of_groups(n_teacher, n_student):
    return tuple(round((i + 1) * n_teacher / n_student) - 1 for i in range(n_student))


@spread_layers.mistake(
    "You cut the decimals off: 6.6 becomes 6, and all layers in the middle lean towards the first. "
    "Take the nearest layer: round, not int or //."
)
def rounds_down(n_teacher, n_student):
    return tuple(i * (n_teacher - 1) // max(1, n_student - 1) for i in range(n_student))


@spread_layers.mistake(
    "The first layers, side by side. They are not spread over the teacher: all that is worked out "
    "above them is gone."
)
def the_first_ones(n_teacher, n_student):
    return tuple(range(n_student))


@spread_layers.mistake(
    "The last layers, side by side. They have never seen bare embeddings: what they expect as "
    "input, the layers below them used to make."
)
def the_last_ones(n_teacher, n_student):
    return tuple(range(n_teacher - n_student, n_teacher))


@spread_layers.mistake(
    "You count layers from 1. In the code, as in this course, the first layer is encoder.layer.0."
)
def counts_from_one(n_teacher, n_student):
    return tuple(layer + 1 for layer in spread_layers.reference(n_teacher, n_student))


@spread_layers.mistake(
    "Right for two layers and more. With one layer there is no step from first to last, and you "
    "divide by zero: return (0,) before."
)
def no_step_for_one_layer(n_teacher, n_student):
    step = (n_teacher - 1) / (n_student - 1)
    return tuple(round(i * step) for i in range(n_student))


# Agreement


def _logits(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pairs_of_logits() -> Iterator[tuple[Tensor, Tensor]]:
    for n_texts, n_classes, noise in ((5, 3, 1.0), (8, 8, 0.7), (40, 3, 0.6), (200, 8, 0.5)):
        teacher = _logits(n_texts, n_classes, seed=n_texts)
        student = teacher + noise * _logits(n_texts, n_classes, seed=n_texts + 1)
        yield 3 * student - 1, teacher


@exercise(
    cases=_pairs_of_logits,
    tolerance=1e-4,
    hints=(
        "Each model puts each text into one class, the one with the largest logit. On how many "
        "texts is that the same class?",
        "`student_logits.argmax(-1) == teacher_logits.argmax(-1)` is one bool per text. Its mean "
        "is the share p.",
        "The standard error of a share of n texts is math.sqrt(p * (1 - p) / n). Go 1.96 of them "
        "down and up.",
    ),
)
def agreement_interval(
    student_logits: Tensor, teacher_logits: Tensor
) -> tuple[float, float, float]:
    """The share of texts put in the teacher's class, and its 95 % interval: (share, low, high).

    Logits are (N, C). The interval is that of the normal approximation: 1.96 standard errors of a
    share, √(p (1 - p) / N), to each side.
    """
    return _share(student_logits.argmax(-1) == teacher_logits.argmax(-1))


def _share(same: Tensor, *, errors: float = 1.96) -> tuple[float, float, float]:
    share = same.double().mean().item()
    error = math.sqrt(share * (1 - share) / len(same))
    return share, share - errors * error, share + errors * error


@agreement_interval.mistake(
    "Your argmax runs down the texts: it finds, for each class, the text with the largest logit. "
    "A text's class is the largest in its *row*: argmax(-1)."
)
def argmax_over_texts(student_logits, teacher_logits):
    return _share(student_logits.argmax(0) == teacher_logits.argmax(0))


@agreement_interval.mistake(
    "You go one standard error to each side. That interval holds the true share in 68 of 100 "
    "cases; for 95 it takes 1.96."
)
def one_standard_error(student_logits, teacher_logits):
    return _share(student_logits.argmax(-1) == teacher_logits.argmax(-1), errors=1.0)


@agreement_interval.mistake(
    "The root is missing: p (1 - p) / N is the *variance* of the share. The standard error is its "
    "root."
)
def variance_for_error(student_logits, teacher_logits):
    share, *_ = _share(student_logits.argmax(-1) == teacher_logits.argmax(-1))
    variance = share * (1 - share) / len(student_logits)
    return share, share - 1.96 * variance, share + 1.96 * variance


@agreement_interval.mistake(
    "You do not divide by the number of texts: √(p (1 - p)) is how much *one* text varies. The "
    "mean of N texts varies √N times less. More texts must make the interval narrower."
)
def spread_of_one_text(student_logits, teacher_logits):
    share, *_ = _share(student_logits.argmax(-1) == teacher_logits.argmax(-1))
    spread = math.sqrt(share * (1 - share))
    return share, share - 1.96 * spread, share + 1.96 * spread


@agreement_interval.mistake(
    "You divide by the number of logits, N · C. What is counted are texts: N, len(student_logits)."
)
def counts_the_logits(student_logits, teacher_logits):
    share, *_ = _share(student_logits.argmax(-1) == teacher_logits.argmax(-1))
    error = 1.96 * math.sqrt(share * (1 - share) / student_logits.numel())
    return share, share - error, share + error


@agreement_interval.mistake(
    "You return percent. In this course a share is a number from 0 to 1; a format such as "
    "f'{share:.0%}' makes percent of it."
)
def in_percent(student_logits, teacher_logits):
    share = _share(student_logits.argmax(-1) == teacher_logits.argmax(-1))
    return tuple(100 * number for number in share)


@agreement_interval.mistake(
    "The share is right, and its interval is missing: return (share, low, high)."
)
def without_interval(student_logits, teacher_logits):
    return (student_logits.argmax(-1) == teacher_logits.argmax(-1)).double().mean().item()


# Copied by name


def _weights() -> Iterator[tuple[dict[str, Tensor], tuple[int, ...]]]:
    def teacher(n_layers: int) -> dict[str, Tensor]:
        weights = {"embeddings.word_embeddings.weight": _logits(3, 2, seed=99)}
        for k in range(n_layers):
            weights[f"encoder.layer.{k}.attention.self.query.weight"] = _logits(2, 2, seed=k)
            weights[f"encoder.layer.{k}.output.dense.bias"] = _logits(2, seed=50 + k)
        return weights | {"pooler.dense.weight": _logits(2, 2, seed=98)}

    yield teacher(4), (0, 2)
    yield teacher(6), (1, 4, 5)
    yield teacher(12), (0, 2, 4, 7, 9, 11)
    yield teacher(12), (10, 11, 0, 1)


_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


@exercise(
    cases=_weights,
    hints=(
        "Three kinds of names: outside the layers, kept as they are; of a layer that stays, kept "
        "under a new number; of a layer that goes, left out.",
        'A layer\'s number stands after "encoder.layer.": name.split(".")[2]. Its new number is '
        "its place in `layers`: layers.index(number).",
        "Put the new name together from its pieces: "
        'pieces = name.split("."); pieces[2] = str(new); ".".join(pieces). Replacing text inside '
        "the name meets 1 in 11.",
    ),
)
def copy_layers(weights: dict[str, Tensor], layers: tuple[int, ...]) -> dict[str, Tensor]:
    """The student's weights by name: layer i is the teacher's `layers[i]`, all else stays.

    `weights` has names such as "encoder.layer.3.output.dense.bias"; whatever is not under
    "encoder.layer." is copied under its own name.
    """
    return _copied(weights, {old: new for new, old in enumerate(layers)})


def _copied(weights: dict[str, Tensor], number: dict[int, int]) -> dict[str, Tensor]:
    """Weights whose layers have new numbers; a layer that has none is left out."""
    copied = {}
    for name, weight in weights.items():
        found = _LAYER.match(name)
        if found is None:
            copied[name] = weight
        elif int(found[1]) in number:
            new = f"encoder.layer.{number[int(found[1])]}."
            copied[_LAYER.sub(new, name)] = weight
    return copied


@copy_layers.mistake(
    "The right layers, under their old numbers. A student of six layers has encoder.layer.0 to 5: "
    "load_state_dict would find no layer 7 in it, and nothing for its layer 1. Number them anew, "
    "in the order of `layers`."
)
def old_numbers(weights, layers):
    return _copied(weights, {layer: layer for layer in layers})


@copy_layers.mistake(
    "You keep the first layers, as many as are asked for. `layers` says *which* of the teacher's: "
    "the student's layer i is the teacher's layers[i]."
)
def first_layers(weights, layers):
    return _copied(weights, {k: k for k in range(len(layers))})


@copy_layers.mistake(
    "You sort the layers. The order is the student's: layers = (10, 11, 0, 1) puts the teacher's "
    "layer 10 first."
)
def sorted_layers(weights, layers):
    return _copied(weights, {old: new for new, old in enumerate(sorted(layers))})


@copy_layers.mistake(
    "The layers are right, and embeddings and pooler are missing. A student made of these has "
    "random ones in their place. What is not in a layer is copied as it is."
)
def layers_alone(weights, layers):
    copied = copy_layers.reference(weights, layers)
    return {name: weight for name, weight in copied.items() if name.startswith("encoder.layer.")}


@copy_layers.mistake(
    "Layers 10 and 11 go astray: “encoder.layer.1” is also the beginning of encoder.layer.10 and "
    "encoder.layer.11. Compare the whole number, up to the next dot."
)
def prefix_without_its_dot(weights, layers):
    copied = {name: w for name, w in weights.items() if not name.startswith("encoder.layer.")}
    for new, old in enumerate(layers):
        for name, weight in weights.items():
            if name.startswith(f"encoder.layer.{old}"):
                renamed = name.replace(f"encoder.layer.{old}", f"encoder.layer.{new}")
                copied[renamed] = weight
    return copied


@copy_layers.mistake(
    "All of the teacher's layers are still there: those that are not in `layers` have to go."
)
def nothing_left_out(weights, layers):
    kept = copy_layers.reference(weights, layers)
    return dict(weights) | kept


# Token types


def _tables() -> Iterator[tuple[Tensor, Tensor]]:
    for n_positions, n_types, size in ((4, 2, 3), (2, 2, 2), (6, 3, 4), (16, 2, 8)):
        yield _logits(n_positions, size, seed=size), _logits(n_types, size, seed=7 * size)


@exercise(
    cases=_tables,
    tolerance=1e-5,
    hints=(
        "What does the first layer receive for a token of a single text? A sum of three vectors; "
        "which of them is the same for every token?",
        "In a single text all token types are 0, so row 0 is added at every position.",
        "`token_types[0]` is (H,) and `positions` (P, H): their sum is (P, H), row by row.",
    ),
)
def fold_types(positions: Tensor, token_types: Tensor) -> Tensor:
    """Position vectors (P, H) that make token types unnecessary for single texts.

    `positions` is (P, H), `token_types` (2, H): the row of the first text and of the second.
    """
    return positions + token_types[0]


@fold_types.mistake(
    "You fold in row 1, the vector of the *second* text of a pair. A single text has type 0."
)
def second_row(positions, token_types):
    return positions + token_types[1]


@fold_types.mistake(
    "You add all rows together. A token has one type, so one row was added to it: row 0."
)
def sum_of_rows(positions, token_types):
    return positions + token_types.sum(0)


@fold_types.mistake(
    "You add the mean of the rows. No token of any text has ever received that; a single text gets "
    "row 0, at every token."
)
def mean_of_rows(positions, token_types):
    return positions + token_types.mean(0)


@fold_types.mistake(
    "Row 0 went into position 0 alone. Every token of a single text has type 0, wherever it stands."
)
def first_position_alone(positions, token_types):
    folded = positions.clone()
    folded[0] += token_types[0]
    return folded


@fold_types.mistake(
    "You add type k to position k. Positions and types are counted separately: all positions of a "
    "single text have type 0."
)
def row_by_row(positions, token_types):
    folded = positions.clone()
    folded[: len(token_types)] += token_types[: len(positions)]
    return folded


@fold_types.mistake(
    "You subtract row 0. The teacher *added* it to every token; without the table the positions "
    "have to bring it along."
)
def taken_off(positions, token_types):
    return positions - token_types[0]


@fold_types.mistake(
    "You return the positions as they were. That drops the token types, as the original script "
    "does: every sum is then off by row 0."
)
def dropped(positions, token_types):
    return positions.clone()


# Size


def _sizes() -> Iterator[tuple[int, int, int, int, int]]:
    yield 10, 4, 2, 1, 2
    yield 100, 16, 4, 2, 8
    yield 30522, 512, 12, 6, 768
    yield 30522, 512, 6, 3, 384


@exercise(
    cases=_sizes,
    hints=(
        "Count the teacher and the student in the same way, part by part. Which parts have the "
        "same size in both?",
        "A linear map from m to n has m·n weights and n biases, a LayerNorm two vectors. A layer: "
        "four maps h to h, one h to 4h, one 4h to h, two LayerNorms.",
        "Teacher: (words + positions + 2)·h + 2h, the layers, and a pooler h to h. Student: "
        "(words + positions)·h + 2h and its layers.",
    ),
)
def student_size(
    n_words: int, n_positions: int, teacher_layers: int, student_layers: int, hidden_size: int
) -> tuple[int, float]:
    """How many parameters a student like DistilBERT has, and its share of the teacher's.

    The teacher is a BERT with 2 token types and a pooler, and feed-forwards of 4 times the hidden
    size; the student has fewer layers, no token types and no pooler. Heads are not counted.
    """
    return _count(n_words, n_positions, teacher_layers, student_layers, hidden_size)


def _count(
    words: int,
    positions: int,
    teacher_layers: int,
    student_layers: int,
    h: int,
    *,
    bias: int = 1,
    norm: int = 2,
    types: int = 0,
    pooler: bool = False,
    embeddings_kept: float = 1.0,
) -> tuple[int, float]:
    """The size and the share; each option is a place at which the count can go wrong."""

    def linear(m: int, n: int) -> int:
        return m * n + bias * n

    layer = 4 * linear(h, h) + linear(h, 4 * h) + linear(4 * h, h) + 2 * norm * h
    tables = (words + positions + types) * h + norm * h
    student = round(embeddings_kept * tables) + student_layers * layer + pooler * linear(h, h)
    teacher = (words + positions + 2) * h + norm * h + teacher_layers * layer + linear(h, h)
    return student, student / teacher


@student_size.mistake(
    "You scale the whole teacher by its layers. Embeddings have no layers: half the layers leave "
    "the tables as large as they were. Count the parts."
)
def share_of_everything(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    student, share = _count(n_words, n_positions, teacher_layers, teacher_layers, hidden_size)
    left = student_layers / teacher_layers
    return round(student / share * left), left


@student_size.mistake(
    "Your student has embeddings cut in proportion to its layers. It needs a vector for every word "
    "and position, however few layers come after."
)
def embeddings_cut_too(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    left = student_layers / teacher_layers
    return _count(
        n_words, n_positions, teacher_layers, student_layers, hidden_size, embeddings_kept=left
    )


@student_size.mistake(
    "Your student still has a pooler: h·h + h parameters too many. DistilBERT has none."
)
def pooler_kept(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    return _count(n_words, n_positions, teacher_layers, student_layers, hidden_size, pooler=True)


@student_size.mistake(
    "Your student still has the two vectors of the token types. DistilBERT has none: row 0 is in "
    "its positions, which stay as large as they were."
)
def types_kept(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    return _count(n_words, n_positions, teacher_layers, student_layers, hidden_size, types=2)


@student_size.mistake(
    "Your student still has token types and a pooler: it is a BERT of fewer layers. Leave both out."
)
def a_shallow_bert(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    return _count(
        n_words, n_positions, teacher_layers, student_layers, hidden_size, types=2, pooler=True
    )


@student_size.mistake(
    "The biases are missing: a linear map from m to n has m·n weights *and* n biases."
)
def without_biases(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    return _count(n_words, n_positions, teacher_layers, student_layers, hidden_size, bias=0)


@student_size.mistake(
    "The LayerNorms are missing: two in each layer and one after the embeddings, each with a scale "
    "and a shift of h numbers."
)
def without_norms(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    return _count(n_words, n_positions, teacher_layers, student_layers, hidden_size, norm=0)


@student_size.mistake("A LayerNorm has two vectors, a scale and a shift; you count one of them.")
def half_a_norm(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    return _count(n_words, n_positions, teacher_layers, student_layers, hidden_size, norm=1)
