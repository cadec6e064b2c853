"""What can be done to a model to make it smaller, one operation at a time, and how it is written.

A *pipeline* is a line of operations in their order: `layers 3, prune 50, trim, int8`. All but the
last kind give back an ordinary model, which the next operation takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from course_utils.compress.importance import taylor
from course_utils.compress.lowrank import factorise, factorise_embeddings
from course_utils.compress.pruning import keep_most_important, remove
from course_utils.compress.ranks import ranks_for
from course_utils.compress.vocabulary import (
    cut_positions,
    tokens_to_keep,
    tokens_to_keep_for_new_texts,
    trim_vocabulary,
)
from course_utils.data.encoding import MAX_LENGTH, EncodedTexts
from course_utils.errors import DataError, ModelError
from course_utils.models.compact_bert import CompactBertConfig
from course_utils.models.student import layer_map, student_from_teacher

NUMBERS = {"int8": "dynamic-int8", "int4": "weight-int4", "bf16": "bf16"}  # in compress' words
_BERTS = ("bert", CompactBertConfig.model_type)
CALIBRATION_TEXTS = 2000  # enough for a gradient or a moment


class Model(NamedTuple):
    """A model on its way, and the tokenizer whose ids it reads."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Operation:
    """One step of a pipeline: a verb and, for most of them, an amount."""

    verb: str
    amount: int | None = None

    def __str__(self) -> str:
        return self.verb if self.amount is None else f"{self.verb} {self.amount}"

    @property
    def is_learned(self) -> bool:
        """Whether the model has to be trained after it."""
        return self.verb in ("layers", "prune", "rank", "words")


def parse(line: str) -> tuple[Operation, ...]:
    """The operations of a pipeline as it is written, `layers 3, trim, int8`.

    Raises `DataError` for what is no operation, an amount that is none or out of bounds, and an
    order that cannot be: whole layers go first, and numbers are made smaller once, at the end.
    """
    operations = tuple(_one(part.split(), line) for part in line.split(","))
    verbs = [operation.verb for operation in operations]
    for name in NUMBERS.keys() & set(verbs[:-1]):
        raise DataError(f"{name} is not the last of {line!r}.", do="Nothing can be done after it.")
    if "layers" in verbs and {"prune", "rank", "words"} & set(verbs[: verbs.index("layers")]):
        raise DataError(f"layers comes too late in {line!r}.", do="Let whole layers go first.")
    if twice := {verb for verb in verbs if verbs.count(verb) > 1}:
        raise DataError(f"{', '.join(twice)} stands twice in {line!r}.", do="Once is enough.")
    return operations


def written(operations: Sequence[Operation]) -> str:
    """The pipeline as tables name it: `parse` the other way round."""
    return ", ".join(map(str, operations))


def need_possible(
    lines: Iterable[Sequence[Operation]],
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Nothing; raises `ModelError` for what no model of this kind has or can have done to it.

    That is more layers or columns than it has, more or fewer tokens than can be kept, and heads and
    linear layers of another family than BERT's.
    """
    for operation in chain.from_iterable(lines):
        if operation.verb in ("prune", "rank") and config.model_type not in _BERTS:
            raise ModelError(
                f"{operation}: a {config.model_type} cannot be cut within its layers here.",
                do="Take a BERT as the teacher, or other operations.",
            )
        if operation.verb == "trim" and operation.amount:
            at = {"at_least": operation.amount, "at_most": operation.amount}
            if (kept := len(tokens_to_keep(tokenizer, [], **at))) != operation.amount:
                raise ModelError(
                    f"{operation}: the {'fewest' if kept > operation.amount else 'most'} tokens "
                    f"that can be kept are {kept}.",
                    do="Every special token and character has to stay; [unused…] ones go.",
                )
        if operation.verb == "layers":
            layer_map(config.num_hidden_layers, operation.amount)
        if operation.verb == "words" and operation.amount >= config.hidden_size:
            raise ModelError(
                f"{operation}: the word table has {config.hidden_size} columns.",
                do=f"Take less than {config.hidden_size}, a third of it to begin with.",
            )


def apply(operation: Operation, model: Model, texts: EncodedTexts, new: EncodedTexts) -> Model:
    """A new model after the operation, not yet trained; the one that is given stays as it is.

    `texts` have labels; `new` are of the same kind, and nothing learns from them: they tell how
    many words to keep. Both are in the model's own ids. Raises `ModelError` for what cannot be
    done to this model.
    """
    return _DO[operation.verb](model, operation.amount, texts, new)


def _layers(model: Model, amount: int, texts: EncodedTexts, new: EncodedTexts) -> Model:
    return model._replace(model=student_from_teacher(model.model, layers=amount))


def _prune(model: Model, amount: int, texts: EncodedTexts, new: EncodedTexts) -> Model:
    share = 1 - amount / 100
    scores = taylor(model.model, _some(texts))
    kept = keep_most_important(scores, heads=share, neurons=share)
    return model._replace(model=remove(model.model, kept))


def _rank(model: Model, amount: int, texts: EncodedTexts, new: EncodedTexts) -> Model:
    ranks = ranks_for(model.model, 1 - amount / 100)
    return model._replace(model=factorise(model.model, ranks, texts=_some(texts)))


def _words(model: Model, amount: int, texts: EncodedTexts, new: EncodedTexts) -> Model:
    return model._replace(model=factorise_embeddings(model.model, amount, texts=texts))


def _trim(model: Model, amount: int | None, texts: EncodedTexts, new: EncodedTexts) -> Model:
    ids = texts.input_ids
    if amount is None:
        keep = tokens_to_keep_for_new_texts(model.tokenizer, ids, new.input_ids)
    else:
        keep = tokens_to_keep(model.tokenizer, ids, at_least=amount, at_most=amount)
    trimmed = trim_vocabulary(model.model, model.tokenizer, keep)
    positions = min(MAX_LENGTH, trimmed.model.config.max_position_embeddings)
    return Model(cut_positions(trimmed.model, positions), trimmed.tokenizer)


_DO: dict[str, Callable[..., Model]] = {
    "layers": _layers,
    "prune": _prune,
    "rank": _rank,
    "words": _words,
    "trim": _trim,
}
_BOUNDS = {"layers": (1, 24), "prune": (1, 99), "rank": (1, 99), "words": (1, 4096)}


def _one(words: list[str], line: str) -> Operation:
    verb, *amounts = words or [""]
    if verb not in _DO.keys() | NUMBERS.keys():
        raise DataError(
            f"There is no operation {verb!r} in {line!r}.",
            do=f"Take one of: {', '.join([*_DO, *NUMBERS])}.",
        )
    if verb in NUMBERS or (verb == "trim" and not amounts):
        if amounts:
            raise DataError(f"{verb} has no amount in {line!r}.", do=f"Write {verb} alone.")
        return Operation(verb)
    low, high = _BOUNDS.get(verb, (1000, 10**6))
    if len(amounts) != 1 or not amounts[0].isdecimal() or not low <= int(amounts[0]) <= high:
        raise DataError(
            f"{' '.join(words)!r} in {line!r} has no amount that can be.",
            do=f"Write {verb} and a whole number from {low} to {high}.",
        )
    return Operation(verb, int(amounts[0]))


def _some(texts: EncodedTexts) -> EncodedTexts:
    """The first of the texts, which stand in no order."""
    n = min(CALIBRATION_TEXTS, len(texts))
    columns = {name: column[:n] for name, column in texts.columns.items()}
    return EncodedTexts(texts.input_ids[:n], **columns)
