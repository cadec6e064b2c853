"""Notebook 05, Training the student: masks, seeds, blocks, a step, accumulation, checkpoints.

What these functions do shows in masks that are drawn, models that change and folders. So they are
*watched*: a case is played through, and what came of it is put down as facts, which are compared.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.classroom import outcomes
from course_utils.classroom.checks import Exercise, Verdict, exercise
from course_utils.classroom.outcomes import Outcome


class Facts(dict[str, Any]):
    """What was seen of a function, by what it says of it: numbers, yes or no, tensors, names."""


class _Watched:
    """A learner's function under watch; it is called, and seen, as the function itself."""

    def __init__(self, watch: Callable, function: Callable):
        functools.update_wrapper(self, function)
        self.watch, self.function = watch, function
        self.__code__ = getattr(function, "__code__", None)  # where to look for a line that failed

    def __call__(self, *case: Any) -> Any:
        return self.watch(self.function, *case)


@dataclass(frozen=True, kw_only=True)
class Watch(Exercise):
    """An exercise whose function is judged by what it does: `watch(function, *case)` gives `Facts`.

    Or it gives what the function returned, where that is not what it should return: `returns`.
    """

    watch: Callable
    returns: str
    known: dict[Callable, list[Outcome]] = field(default_factory=dict, repr=False)  # seen before

    def judge(self, function: Any) -> Verdict:
        return super().judge(self._watched(function) if callable(function) else function)

    def _outcomes_of(self, function: Callable) -> list[Outcome]:
        if function not in self.known:
            self.known[function] = super()._outcomes_of(self._watched(function))
        return self.known[function]

    def _watched(self, function: Callable) -> _Watched:
        return function if isinstance(function, _Watched) else _Watched(self.watch, function)

    def _unknown_mistake(
        self, function: Callable, k: int, found: Outcome, expected: Outcome
    ) -> Verdict:
        """The verdict that names the facts which are not as they should be."""
        if found.error is not None:
            return super()._unknown_mistake(function, k, found, expected)
        if not isinstance(found.value, Facts):
            got = outcomes.kind(found.value)
            return Verdict("wrong", f"Your function returns {got}; {self.returns} is expected.")
        lines = [
            f"    {name}: {_in_words(now)}; expected {_in_words(expected.value[name])}"
            for name, now in found.value.items()
            if not outcomes.same(now, expected.value[name], self.tolerance)
        ]
        return Verdict("wrong", "\n".join(["Something else came of it:", *lines]))


def _watched(**options: Any) -> Callable[[Callable], Watch]:
    """A decorator that turns the right answer into a `Watch` of that name."""
    return lambda reference: Watch(reference, **options)


def _in_words(fact: Any) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if outcomes.is_tensor(fact):
        return "other numbers"
    return fact if isinstance(fact, str) else outcomes.words(fact)


Slips = Mapping[str, tuple[str, Mapping[str, Any]]]


def _add_slips(exercise: Exercise, function: Callable, *groups: Slips) -> None:
    """Nothing; adds each slip, and each combination of slips with at most one of a group.

    A slip is a sentence and the options with which `function` makes it.
    """
    for chosen in product(*({"": ("", {})} | group for group in groups)):
        slips = [group[name] for name, group in zip(chosen, groups, strict=True) if name]
        if slips:
            options = {key: value for _, each in slips for key, value in each.items()}
            slip = functools.partial(function, **options)
            slip.__name__ = "_and_".join(filter(None, chosen))
            exercise.mistake(" And one thing more. ".join(why for why, _ in slips))(slip)


# Masking


def _texts_to_mask() -> Iterator[tuple[Tensor, tuple[int, ...], int, int, float, torch.Generator]]:
    for seed, (rows, length, vocab_size, share) in enumerate(
        ((600, 100, 200, 0.15), (300, 100, 30, 0.3))
    ):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(5, vocab_size, (rows, length), generator=generator)
        ids[:, 0], ids[:, -1] = 2, 3  # [CLS], [SEP]
        ids[::3, length // 2] = 3
        ids[::4, -20:] = 0  # [PAD]
        yield ids, (0, 1, 2, 3, 4), 4, vocab_size, share, generator


def _watch_masking(function, ids, special, mask_id, vocab_size, share, generator):
    given, state = ids.clone(), generator.get_state()
    found = function(ids, special, mask_id, vocab_size, share, generator)
    if not _is_pair(found, ids.shape):
        return found
    masked, labels = found
    generator.set_state(state)
    again = function(given.clone(), special, mask_id, vocab_size, share, generator)
    is_special = torch.isin(given, torch.tensor(special))
    asked = labels != -100
    changed = masked != given
    drawn = asked & changed & (masked != mask_id)
    return Facts(
        {
            "of the ordinary tokens, have a label": _share(asked, ~is_special),
            "a special token has a label": bool((asked & is_special).any()),
            "a special token was changed": bool((changed & is_special).any()),
            "labels that hold the token which stood there": _share(labels == given, asked),
            "tokens without a label that were changed": _share(changed, ~asked),
            "of those with a label, are [MASK] now": _share(masked == mask_id, asked),
            "of those with a label, are another token now": _share(drawn, asked),
            "of those with a label, are as they were": _share(~changed, asked),
            "some became another token": bool(drawn.any()),
            "a special token was drawn": bool(
                torch.isin(masked[drawn], torch.tensor(special)).any()
            ),
            "the same generator gives the same masks": all(
                map(torch.equal, map(torch.as_tensor, again), (masked, labels))
            ),
        }
    )


def _is_pair(found: Any, shape: torch.Size) -> bool:
    return (
        isinstance(found, (tuple, list))
        and len(found) == 2
        and all(outcomes.is_tensor(each) and each.shape == shape for each in found)
    )


def _share(which: Tensor, of: Tensor) -> float:
    return which[of].double().mean().item() if of.any() else 0.0


def _the_chosen(chosen: Tensor, fate: Tensor) -> Tensor:
    return chosen


def _mask(
    ids: Tensor,
    special: Sequence[int],
    mask_id: int,
    vocab_size: int,
    share: float,
    generator: torch.Generator | None,
    *,
    choose: Callable[[Tensor, float], Tensor] = torch.lt,
    fates: tuple[float, float] = (0.8, 0.9),
    asked: Callable[[Tensor, Tensor], Tensor] = _the_chosen,
    label: Callable[[Tensor, Tensor], Tensor] = lambda ids, masked: ids,
    unasked: int = -100,
    spared: bool = True,
    ordinary: bool = True,
    seeded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Masked ids and labels, right by default; each option is a place to go wrong.

    Below the first of `fates` a chosen token becomes [MASK], below the second a random one.
    """
    generator = generator if seeded else None
    chosen = choose(torch.rand(ids.shape, generator=generator), share)
    if spared:
        chosen &= ~torch.isin(ids, torch.tensor(special))
    fate = torch.rand(ids.shape, generator=generator)
    tokens = torch.arange(vocab_size)
    if ordinary:
        tokens = tokens[~torch.isin(tokens, torch.tensor(special))]
    drawn = tokens[torch.randint(len(tokens), ids.shape, generator=generator)]
    masked = torch.where(chosen & (fate < fates[1]), drawn, ids)
    masked = torch.where(chosen & (fate < fates[0]), mask_id, masked)
    return masked, torch.where(asked(chosen, fate), label(ids, masked), unasked)


@_watched(
    cases=_texts_to_mask,
    tolerance=0.025,  # of shares among ten thousand tokens
    watch=_watch_masking,
    returns="a pair of tensors, masked ids and labels, each of the shape of `ids`,",
    hints=(
        "Three things are drawn for every token, whether it is needed or not: a number that says "
        "whether it is chosen, one that says what becomes of it, and a token that might take its "
        "place. Each is one line: torch.rand or torch.randint, of ids.shape.",
        "chosen = (torch.rand(…) < share) & ~torch.isin(ids, torch.tensor(special)). With `fate` "
        "from torch.rand: below 0.8 [MASK], from 0.8 to 0.9 a random token, above it stays. The "
        "labels are the *old* ids where `chosen` holds, -100 elsewhere.",
        "Random tokens are drawn from those that are not special: make the list of these, draw "
        "*places* in it with torch.randint(len(ordinary), …), and look them up: ordinary[places]. "
        "Put things together with torch.where, and hand `generator=generator` to every draw.",
    ),
)
def mask_tokens_by_hand(
    ids: Tensor,
    special: tuple[int, ...],
    mask_id: int,
    vocab_size: int,
    share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """(masked ids, labels), both of the shape of `ids`: 80 % [MASK], 10 % random, 10 % kept."""
    return _mask(ids, special, mask_id, vocab_size, share, generator)


_FATES: Slips = {
    "random_became_mask": (
        "Of the chosen tokens 90 % become [MASK]: the 10 % that should become a *random* token are "
        "[MASK] as well. Without them the model learns that whatever is not [MASK] is right, and "
        "has no need to look at it.",
        {"fates": (0.9, 0.9)},
    ),
    "always_mask": (
        "Every chosen token becomes [MASK]. But when the model is used there is no [MASK] in its "
        "texts: a tenth of the chosen stay as they are and a tenth become a random token, so that "
        "it makes something of *every* token.",
        {"fates": (1.0, 1.0)},
    ),
    "none_is_random": (
        "80 % become [MASK] and all the others stay: none becomes a random token, and a tenth of "
        "the chosen should.",
        {"fates": (0.8, 0.8)},
    ),
    "nothing_stays": (
        "80 % become [MASK] and all the others a random token. A tenth of the chosen is to stay as "
        "it was, with a label.",
        {"fates": (0.8, 1.0)},
    ),
    "a_tenth_of_the_rest": (
        "80 % become [MASK], but only 2 % a random token: you drew a tenth of the 20 % that were "
        "left, and it is a tenth of all the chosen, half of those left. One draw for all three is "
        "safer: below 0.8, below 0.9, above.",
        {"fates": (0.8, 0.82)},
    ),
}
_SPECIAL_MASKED: Slips = {
    "special_masked": (
        "Special tokens are hidden too: [CLS], [SEP], even padding, about which there is nothing "
        "to guess. Leave the ids in `special` out of what is chosen.",
        {"spared": False},
    ),
}
_add_slips(
    mask_tokens_by_hand,
    _mask,
    _FATES,
    _SPECIAL_MASKED
    | {
        "generator_not_used": (
            "Asked twice with the same generator you give two different masks. Hand it to every "
            "draw: torch.rand(…, generator=generator), torch.randint(…, generator=generator).",
            {"seeded": False},
        ),
        "labels_hold_what_is_seen": (
            "The labels hold the ids *after* masking: the model is asked to guess [MASK]. A label "
            "is the token that stood there before.",
            {"label": lambda ids, masked: masked},
        ),
    },
)
_add_slips(
    mask_tokens_by_hand,
    _mask,
    _SPECIAL_MASKED,
    {
        "special_drawn": (
            "A random token can be a special one: you draw from all ids, and some of them are "
            "[CLS], [SEP] or padding in the middle of a text. Draw from the others alone.",
            {"ordinary": False},
        ),
        "labels_everywhere": (
            "Every token has a label, also those that anybody can read off. Nearly all of the loss "
            "then comes from copying. Where nothing was hidden the label is -100.",
            {"asked": lambda chosen, fate: torch.ones_like(chosen)},
        ),
        "kept_have_no_label": (
            "The chosen tokens that stay as they are have no label. They are asked for like the "
            "others; otherwise leaving them as they are does nothing at all.",
            {"asked": lambda chosen, fate: chosen & (fate < 0.9)},
        ),
        "labels_on_mask_alone": (
            "Only [MASK] has a label. The random tokens and those that stay are asked for too: "
            "every chosen token has a label.",
            {"asked": lambda chosen, fate: chosen & (fate < 0.8)},
        ),
        "the_others_are_chosen": (
            "You choose the tokens *above* the share: 85 % where 15 % are meant. "
            "torch.rand(…) < share is true for a share of the tokens.",
            {"choose": torch.gt},
        ),
        "zero_for_no_label": (
            "Where nothing was chosen your label is 0, and 0 is a token like any other, [PAD]: the "
            "model would learn to guess padding everywhere. “Not counted” is written -100.",
            {"unasked": 0},
        ),
    },
)


# Seeds


def _moments() -> Iterator[tuple[int, int, int, int, float]]:
    yield 0, 0, 0, 2000, 0.15
    yield 17, 4, 1000, 2000, 0.3


def _watch_seeds(function, seed, epoch, number, length, share):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        keys = [
            (seed + s, epoch + e, number + n) for s in (0, 1) for e in range(3) for n in range(3)
        ]
        keys += [(seed, 1, 11), (seed, 11, 1)]
        masks = {}
        for key in keys:
            found = function(*key, length, share)
            if np.shape(found) != (length,):
                return found
            masks[key] = torch.as_tensor(found).bool().clone()
        untouched = _random_states() == _random_states(before)
        torch.manual_seed(1)  # another process, another day
        random.seed(1)
        np.random.seed(1)
        again = {key: torch.as_tensor(function(*key, length, share)) for key in reversed(keys)}
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])

    def alike(*step: int) -> float:
        """The share of masks that come again after this many seeds, epochs and blocks more."""
        further = [(k, tuple(map(sum, zip(k, step, strict=True)))) for k in keys[:-2]]
        pairs = [masks[k].equal(masks[other]) for k, other in further if other in masks]
        return sum(pairs) / len(pairs)

    return Facts(
        {
            "tokens that are hidden": torch.stack([*masks.values()]).double().mean().item(),
            "asked again in another order, the masks are the same": all(
                masks[key].equal(again[key].bool()) for key in keys
            ),
            "masks that come again in the next epoch": alike(0, 1, 0),
            "masks that come again in the next block": alike(0, 0, 1),
            "masks that come again with the next seed": alike(1, 0, 0),
            "masks that block 1 of an epoch has from block 0 of the next": alike(0, 1, -1),
            "block 11 in epoch 1 has the mask of block 1 in epoch 11": masks[seed, 1, 11].equal(
                masks[seed, 11, 1]
            ),
            "the random numbers of everybody else are left alone": untouched,
        }
    )


def _random_states(states: tuple | None = None) -> tuple:
    """The states of torch, Python and NumPy, now or as given, to be compared."""
    of_torch, of_python, of_numpy = states or (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(),
    )
    return of_torch.tolist(), of_python, [np.asarray(part).tolist() for part in of_numpy]


def _mixed(seed: int, epoch: int, number: int) -> int:
    return (seed * 1_000_003 + epoch) * 1_000_003 + number


def _draw(
    seed: int,
    epoch: int,
    number: int,
    length: int,
    share: float,
    *,
    mix: Callable[[int, int, int], int] = _mixed,
    source: Callable[[int], torch.Generator] = lambda seed: torch.Generator().manual_seed(seed),
    choose: Callable[[Tensor, float], Tensor] = torch.lt,
) -> Tensor:
    """The hidden positions of one block, right by default; each option is a place to go wrong."""
    return choose(torch.rand(length, generator=source(mix(seed, epoch, number))), share)


@_watched(
    cases=_moments,
    tolerance=0.02,  # of a share among some ten thousand tokens
    watch=_watch_seeds,
    returns="a tensor of `length` values, True where a token is hidden,",
    hints=(
        "A mask that depends on three numbers and nothing else: make a generator of your own, seed "
        "it with something made from all three, draw `length` numbers with it.",
        "generator = torch.Generator().manual_seed(…), then torch.rand(length, "
        "generator=generator) < share. No other random number in the program may feel it.",
        "What you seed with has to differ whenever one of the three does. seed + epoch + number "
        "does not: 0 + 1 + 2 is 0 + 2 + 1. Give each its own range, as digits have in a number: "
        "multiply by a large constant before you add the next.",
    ),
)
def masks_for(seed: int, epoch: int, number: int, length: int, share: float) -> Tensor:
    """Which of the `length` tokens of block `number` are hidden in this epoch, (length,) bool."""
    return _draw(seed, epoch, number, length, share)


_SHARED = torch.Generator().manual_seed(0)

_add_slips(
    masks_for,
    _draw,
    {
        "the_same_in_every_epoch": (
            "A block has the same mask in every epoch: `epoch` plays no part. The model is then "
            "asked the same questions again and again, 15 % of the text, and never about the rest.",
            {"mix": lambda seed, epoch, number: _mixed(seed, 0, number)},
        ),
        "the_same_for_all_blocks": (
            "All blocks of an epoch have the same mask: `number` plays no part. The same "
            "*positions* are then hidden everywhere.",
            {"mix": lambda seed, epoch, number: _mixed(seed, epoch, 0)},
        ),
        "seed_not_used": (
            "`seed` plays no part: two runs with two seeds are asked the same questions, and "
            "nobody can tell what was luck.",
            {"mix": lambda seed, epoch, number: _mixed(0, epoch, number)},
        ),
        "only_the_seed": (
            "One mask for every block in every epoch: neither `epoch` nor `number` plays a part.",
            {"mix": lambda seed, epoch, number: seed},
        ),
        "a_sum_of_three": (
            "You seed with the sum. Block 1 of an epoch then has the mask that block 0 has in the "
            "next: 0 + 1 is 1 + 0. Multiply before you add, so that no two triples meet.",
            {"mix": lambda seed, epoch, number: seed + epoch + number},
        ),
        "digits_run_together": (
            "You put the numbers side by side: epoch 1, block 11 and epoch 11, block 1 are both "
            "“111”. Give each number its own range.",
            {"mix": lambda seed, epoch, number: int(f"{seed}{epoch}{number}")},
        ),
    },
    {
        "global_state": (
            "You seed the *global* generator, torch.manual_seed. The masks are right, and dropout "
            "and shuffling, which draw from it too, start anew with every block. Make your own: "
            "torch.Generator().manual_seed(…).",
            {"source": lambda seed: torch.manual_seed(seed)},
        ),
    },
)
_add_slips(
    masks_for,
    _draw,
    {
        "nothing_seeded": (
            "Nothing is seeded: a mask depends on how many random numbers the program has drawn "
            "before. After a restart it is another one.",
            {"source": lambda seed: None},
        ),
        "one_generator_for_all": (
            "One generator goes on from block to block. Then a mask depends on which blocks came "
            "before it: on the order of the batches, on how many workers load them, and on "
            "whether the run was resumed. Make a new generator in every call.",
            {"source": lambda seed: _SHARED},
        ),
        "the_others_are_chosen": (
            "True is a token that is hidden, and you hide those *above* the share.",
            {"choose": torch.gt},
        ),
    },
)


# Blocks


def _documents() -> Iterator[tuple[list[list[int]], int, int, int]]:
    # No document ends where a block does: whether [SEP] may begin a block is left open.
    yield [[11, 12, 13], [21, 22, 23, 24, 25, 26], [31, 32]], 6, 1, 2
    yield [list(range(100, 117)), [201, 202], list(range(300, 309))], 8, 101, 102
    yield [[10 * k + i for i in range(3 + k % 6)] for k in range(1, 9)], 10, 3, 4


def _pack(
    documents: list[list[int]],
    length: int,
    cls: int,
    sep: int,
    *,
    room: int = 2,
    head: bool = True,
    tail: bool = True,
    between: bool = True,
    last: str = "left out",
) -> list[list[int]]:
    """Blocks from one stream of tokens, right by default; each option is a place to go wrong."""
    stream: list[int] = []
    step = length - room
    for document in documents:
        if between and stream:
            stream.append(sep)
        stream += document
    pieces = [stream[k : k + step] for k in range(0, len(stream), step)]
    if len(pieces[-1]) < step:
        if last == "left out":
            pieces.pop()
        elif last == "padded":
            pieces[-1] = pieces[-1] + [0] * (step - len(pieces[-1]))
    return [[cls] * head + piece + [sep] * tail for piece in pieces]


def _each_by_itself(
    documents: list[list[int]],
    length: int,
    cls: int,
    sep: int,
    *,
    keep: Callable[[list[list[int]], int], list[list[int]]] = lambda pieces, room: pieces,
    pad: bool = False,
) -> list[list[int]]:
    """Blocks that hold tokens of one document each."""
    room, blocks = length - 2, []
    for document in documents:
        pieces = [document[k : k + room] for k in range(0, len(document), room)]
        for piece in keep(pieces, room):
            blocks.append([cls, *piece, sep, *[0] * (pad * (room - len(piece)))])
    return blocks


@exercise(
    cases=_documents,
    hints=(
        "Forget the documents for a while: put all their tokens into one long list, `stream`, with "
        "[SEP] between one document and the next. Then cut.",
        "A block has room for length - 2 tokens, because [CLS] and [SEP] stand around them. "
        "stream[k : k + room] for k in range(0, len(stream), room).",
        "The last piece may be too short: only len(stream) // room pieces are whole. Each becomes "
        "[cls, *piece, sep].",
    ),
)
def to_blocks_by_hand(
    documents: list[list[int]], length: int, cls: int, sep: int
) -> list[list[int]]:
    """Blocks of `length` ids, [CLS] t t [SEP] t … [SEP]; only the last, unfinished one is lost."""
    return _pack(documents, length, cls, sep)


_add_slips(
    to_blocks_by_hand,
    _pack,
    {
        "no_sep_between": (
            "Between two documents there is no [SEP]: the last word of one and the first of the "
            "next read like neighbours.",
            {"between": False},
        ),
    },
    {
        "no_cls": (
            "Your blocks do not begin with [CLS]. The teacher has never read a text without it: "
            "cls, then length - 2 tokens, then sep.",
            {"head": False, "room": 1},
        ),
        "no_sep_at_the_end": (
            "Your blocks do not end with [SEP]. The teacher has never read a text without it: "
            "cls, then length - 2 tokens, then sep.",
            {"tail": False, "room": 1},
        ),
        "neither_cls_nor_sep": (
            "Your blocks are cut out of the stream and nothing stands around them. A BERT expects "
            "[CLS] first and [SEP] last: cls, then length - 2 tokens, then sep.",
            {"head": False, "tail": False, "room": 0},
        ),
        "no_cls_and_too_short": (
            "[CLS] is missing, and your blocks are one token too short for it: cls, then "
            "length - 2 tokens, then sep.",
            {"head": False},
        ),
        "no_sep_at_the_end_and_too_short": (
            "The last [SEP] is missing, and your blocks are one token too short for it: cls, then "
            "length - 2 tokens, then sep.",
            {"tail": False},
        ),
        "one_too_long": (
            "Your blocks are one token too long: you left room for one of [CLS] and [SEP], and "
            "both need a place. length - 2 tokens go between them.",
            {"room": 1},
        ),
        "two_too_long": (
            "Your blocks are two tokens too long: `length` tokens of text, and then [CLS] and "
            "[SEP] around them. length - 2 go between them.",
            {"room": 0},
        ),
    },
    {
        "the_last_one_is_short": (
            "Your last block is shorter than the others. Blocks are put into one tensor, so all "
            "have the same length: the unfinished one is left out.",
            {"last": "short"},
        ),
        "the_last_one_is_padded": (
            "Your last block is filled up with padding. There is to be none: the unfinished block "
            "is left out, and what it costs, some tokens of the whole corpus, is printed.",
            {"last": "padded"},
        ),
    },
)
_add_slips(
    to_blocks_by_hand,
    _each_by_itself,
    {
        "padded": (
            "Each document has its own blocks, filled up with padding. The models then compute "
            "for padding as they do for words. Let the next document begin where one ends, with "
            "[SEP] between them.",
            {"pad": True},
        ),
        "each_by_itself": (
            "Each document has its own blocks, and they have different lengths. Let the next "
            "document begin where one ends, with [SEP] between them.",
            {"pad": False},
        ),
        "cut_off": (
            "You keep the beginning of each document and throw the rest away, as truncation=True "
            "does. Nothing is to be lost but the end of the whole corpus: what does not fit goes "
            "on in the next block.",
            {"keep": lambda pieces, room: pieces[:1]},
        ),
        "cut_off_and_padded": (
            'One block per document, as truncation=True and padding="max_length" make it: long '
            "documents lose their end, short ones are filled up with padding. Put all documents "
            "into one stream, and cut that.",
            {"keep": lambda pieces, room: pieces[:1], "pad": True},
        ),
        "tails_dropped": (
            "The end of *every* document is lost, because each begins a block of its own and only "
            "whole blocks stay. Put all documents into one stream; then one end is lost, the last.",
            {"keep": lambda pieces, room: [piece for piece in pieces if len(piece) == room]},
        ),
    },
)


# One step


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (
        outcomes.is_tensor(value) and value.numel() == 1
    )


class _Toy(nn.Module):
    """A model of two tables that answers as a masked-language model of transformers does.

    Its dropout is no matter of luck: in training mode every second number is doubled, the others
    are 0. It notes how it is asked, and how many answers still wait for their backward pass.
    """

    def __init__(self, vocab_size: int, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.words = nn.Parameter(torch.randn(vocab_size, 4, generator=generator))
        self.head = nn.Parameter(torch.randn(4, vocab_size, generator=generator))
        self.modes: list[bool] = []
        self.waiting = self.most_waiting = 0

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **_: Any) -> SimpleNamespace:
        self.modes.append(self.training)
        hidden = self.words[input_ids]  # (B, S, 4)
        hidden = hidden + hidden.mean(1, keepdim=True)
        if self.training:
            hidden = hidden * torch.tensor([2.0, 0.0, 2.0, 0.0])
        logits = hidden @ self.head  # (B, S, V)
        if logits.requires_grad:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            logits.register_hook(self._answered)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return SimpleNamespace(logits=logits, loss=loss)

    def _answered(self, gradient: Tensor) -> None:
        self.waiting -= 1

    def weights(self) -> Tensor:
        """All of its numbers in one row."""
        return torch.cat([weight.detach().flatten() for weight in self.parameters()])


def _batch(shape: tuple[int, int], labelled: Sequence[int], seed: int) -> dict[str, Tensor]:
    """Ids below 12 and labels: as many in row k as `labelled[k]`, -100 elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(12, shape, generator=generator)
    true = torch.randint(12, shape, generator=generator)
    asked = torch.arange(shape[1]) < torch.tensor(labelled)[:, None]
    mask = torch.ones_like(ids)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(asked, true, -100)}


def _pairs_of_models() -> Iterator[tuple]:
    for seed, temperature in ((0, 2.0), (1, 4.0)):
        student, teacher = _Toy(12, seed).eval(), _Toy(12, seed + 10).train()
        optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
        yield student, teacher, _batch((3, 6), (1, 3, 2), seed), optimizer, temperature


def _watch_step(function, student, teacher, batch, optimizer, temperature):
    frozen, steps, losses = teacher.weights(), [], []
    handle = optimizer.register_step_post_hook(lambda *_: steps.append(None))
    for _ in range(2):  # what the first call leaves behind shows in the second
        loss = function(student, teacher, dict(batch), optimizer, temperature)
        if not _is_number(loss):
            return loss
        losses.append(float(torch.as_tensor(loss).detach()))
    handle.remove()
    return Facts(
        {
            "the loss, in two calls": losses,
            "steps of the optimizer": len(steps),
            "the teacher was asked in eval mode": not any(teacher.modes) and bool(teacher.modes),
            "the student was asked in training mode": all(student.modes) and bool(student.modes),
            "gradients were computed for the teacher": any(
                weight.grad is not None for weight in teacher.parameters()
            ),
            "the teacher's weights are what they were": frozen.equal(teacher.weights()),
            "the student's weights after two steps": student.weights(),
        }
    )


def _step(
    student: nn.Module,
    teacher: nn.Module,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    temperature: float,
    *,
    modes: tuple[bool, bool] = (True, False),
    frozen: bool = True,
    zero: str = "first",
    step: bool = True,
    factor: Callable[[float], float] = lambda t: t * t,
    where: str = "labels",
    hard: str = "labels",
    reduction: Callable[[Tensor], Tensor] = lambda kl: kl.sum(-1).mean(),
    turned: bool = False,
) -> Tensor:
    """The loss of one training step, right by default; each option is a place to go wrong."""
    student.train(modes[0])
    teacher.train(modes[1])
    ids, labels = batch["input_ids"], batch["labels"]
    with torch.set_grad_enabled(not frozen):
        target = teacher(input_ids=ids).logits  # (B, S, V)
    logits = student(input_ids=ids).logits
    at = labels != -100 if where == "labels" else torch.ones_like(labels, dtype=torch.bool)
    log_q, log_p = ((each[at] / temperature).log_softmax(-1) for each in (logits, target))  # (N, V)
    if turned:
        log_q, log_p = log_p, log_q
    soft = factor(temperature) * reduction(log_p.exp() * (log_p - log_q))
    wanted = labels if hard == "labels" else ids
    loss = soft + F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    if zero == "first":
        optimizer.zero_grad()
    loss.backward()
    if zero == "too late":
        optimizer.zero_grad()
    if step:
        optimizer.step()
    return loss.detach()


@_watched(
    cases=_pairs_of_models,
    tolerance=1e-4,
    watch=_watch_step,
    returns="the loss, one number,",
    hints=(
        "In this order: both models into their modes; the teacher's logits; the student's; the "
        "loss; old gradients away, backward, step.",
        "teacher.eval(), and its forward pass inside `with torch.no_grad():`. The labels say where "
        "both losses look: at = labels != -100, and logits[at] is (N, V).",
        "soft = T² · F.kl_div(student's log-probs at T, teacher's probs at T, "
        'reduction="batchmean"), hard = F.cross_entropy(logits[at], labels[at]). Then '
        "optimizer.zero_grad(), loss.backward(), optimizer.step(); return loss.item().",
    ),
)
def training_step(
    student: nn.Module,
    teacher: nn.Module,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    temperature: float,
) -> Tensor:
    """The loss of one step, soft (with T²) + masked LM, both means over tokens with a label."""
    return _step(student, teacher, batch, optimizer, temperature)


_add_slips(
    training_step,
    _step,
    {
        "teacher_in_train_mode": (
            "The teacher is in training mode: dropout strikes out some of what it says, and what "
            "the student is to learn changes from step to step. teacher.eval().",
            {"modes": (True, True)},
        ),
        "student_in_eval_mode": (
            "The student is in eval mode: if its recipe has dropout, there is none. "
            "student.train() before the step.",
            {"modes": (False, False)},
        ),
        "modes_not_set": (
            "The modes are the wrong way round, which is how both models came: the student learns, "
            "student.train(); the teacher knows, teacher.eval().",
            {"modes": (False, True)},
        ),
    },
    {
        "teacher_with_gradient": (
            "Gradients are computed for the teacher as well: time and memory for weights that "
            "never change, and if an optimizer held them, they would. Ask it inside "
            "`with torch.no_grad():`.",
            {"frozen": False},
        ),
    },
    {
        "gradients_kept": (
            "The gradients of the step before are still there: backward *adds* to them. "
            "optimizer.zero_grad(), once per step.",
            {"zero": "never"},
        ),
        "no_t_squared": (
            "The factor T² is missing from the soft loss. Its gradient shrinks like 1/T², so that "
            "the labels outweigh the teacher (notebook 03).",
            {"factor": lambda t: 1.0},
        ),
        "soft_loss_everywhere": (
            "The soft loss is taken over all tokens. That is what the paper's authors did, and "
            "here it is to look where the labels are, labels != -100: a seventh of the products "
            "with the vocabulary.",
            {"where": "everywhere"},
        ),
        "guesses_what_it_sees": (
            "Your masked-LM loss is taken over all tokens, with the *input* as the answer: the "
            "student learns to copy. The answers are in `labels`, and -100 is not counted.",
            {"hard": "inputs"},
        ),
    },
)
_add_slips(
    training_step,
    _step,
    {
        "no_step": (
            "The weights do not move: optimizer.step() is missing.",
            {"step": False},
        ),
        "gradients_thrown_away": (
            "zero_grad stands between backward and step: the gradients are gone before the "
            "optimizer sees them.",
            {"zero": "too late"},
        ),
        "the_wrong_way_round": (
            "Your soft loss is KL(student‖teacher). The teacher weighs: KL(teacher‖student). In "
            "F.kl_div the student's log-probs come first, and the teacher is the target.",
            {"turned": True},
        ),
        "mean_over_words": (
            'Your soft loss is a mean over the vocabulary too, as reduction="mean" gives it: with '
            '30 522 words it all but vanishes. Sum over words, mean over tokens: "batchmean".',
            {"reduction": torch.mean},
        ),
    },
)


# Accumulation


def _micro_batches() -> Iterator[tuple]:
    for seed, labelled in enumerate((((1, 0), (4, 5)), ((2, 1), (6, 6), (0, 3), (1, 1)))):
        model = _Toy(12, seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        yield model, [_batch((2, 6), row, k) for k, row in enumerate(labelled)], optimizer


def _watch_accumulation(function, model, micro_batches, optimizer):
    steps, losses = [], []
    handle = optimizer.register_step_post_hook(lambda *_: steps.append(None))
    for _ in range(2):
        loss = function(model, [dict(batch) for batch in micro_batches], optimizer)
        if not _is_number(loss):
            return loss
        losses.append(float(torch.as_tensor(loss).detach()))
    handle.remove()
    return Facts(
        {
            "the loss, in two calls": losses,
            "steps of the optimizer": len(steps),
            "micro-batches held in memory at once": model.most_waiting,
            "the weights after two calls": model.weights(),
        }
    )


def _accumulated(
    model: nn.Module,
    micro_batches: Sequence[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    share: str = "count",
    zero: str = "first",
    step: str = "at the end",
    at_once: bool = False,
    report: str = "sum",
) -> Tensor:
    """The loss of a step in parts, right by default; each option is a place to go wrong."""
    counts = [int((batch["labels"] != -100).sum()) for batch in micro_batches]
    divisors = {
        "count": [sum(counts)] * len(counts),
        "mean of means": [count * len(counts) for count in counts],
        "sum of means": counts,
        "sum": [1] * len(counts),
        "places": [sum(batch["labels"].numel() for batch in micro_batches)] * len(counts),
    }[share]
    if zero == "first":
        optimizer.zero_grad()
    total, last = torch.zeros(()), torch.zeros(())
    for batch, divisor in zip(micro_batches, divisors, strict=True):
        if zero == "between":
            optimizer.zero_grad()
        logits, labels = model(input_ids=batch["input_ids"]).logits, batch["labels"]
        last = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / divisor
        if not at_once:
            last.backward()
            last = last.detach()
        total = total + last
        if step == "every time":
            optimizer.step()
    if at_once:
        total.backward()
    if step == "at the end":
        optimizer.step()
    return (total if report == "sum" else last).detach()


@_watched(
    cases=_micro_batches,
    tolerance=1e-4,
    watch=_watch_accumulation,
    returns="the loss of the whole step, one number,",
    hints=(
        "The result is to be that of one large batch: the sum of the losses of *all* labelled "
        "tokens divided by how many *all* of them are. Count them first.",
        'n = sum of (batch["labels"] != -100).sum(). Then, for each micro-batch, the *sum* of its '
        "losses over n, and backward at once: gradients add up by themselves.",
        'F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / n. One '
        "zero_grad before the loop, one step after it, and the losses added up as numbers: "
        "total += loss.item().",
    ),
)
def accumulate(
    model: nn.Module,
    micro_batches: list[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    """The masked-LM loss of one optimizer step made of several micro-batches, as of one batch."""
    return _accumulated(model, micro_batches, optimizer)


_add_slips(
    accumulate,
    _accumulated,
    {
        "mean_of_means": (
            "You average the means of the micro-batches. Where one has 2 labels and another 12, a "
            "label of the first weighs six times as much: 4×8 is not 1×32. Divide each *sum* by "
            "the number of labels in the whole step.",
            {"share": "mean of means"},
        ),
        "sum_of_means": (
            "You add up the means of the micro-batches: four of them make the gradient four times "
            "as long. Divide each *sum* by the number of labels in the whole step.",
            {"share": "sum of means"},
        ),
        "not_divided": (
            "You add up the losses and divide by nothing: the gradient grows with the batch. "
            "Divide by the number of labels in the whole step.",
            {"share": "sum"},
        ),
        "divided_by_all_places": (
            "You divide by the number of all tokens; -100 is not counted. Divide by the number of "
            "labels in the whole step.",
            {"share": "places"},
        ),
    },
    {
        "zeroed_between": (
            "Your gradients are thrown away before each micro-batch: what is left at the end is "
            "the last one's alone. zero_grad once, before the loop.",
            {"zero": "between"},
        ),
        "gradients_kept": (
            "The gradients of the step before are still there. zero_grad once, before the loop.",
            {"zero": "never"},
        ),
        "a_step_each_time": (
            "You take a step after every micro-batch, with all gradients that have come together "
            "so far. Accumulating is one step, after the loop.",
            {"step": "every time"},
        ),
        "small_batches": (
            "zero_grad and step for every micro-batch: that is training with small batches. "
            "Accumulating is one zero_grad before the loop and one step after it.",
            {"step": "every time", "zero": "between"},
        ),
        "no_step": (
            "The gradients are all there, and the weights do not move: one optimizer.step() after "
            "the loop.",
            {"step": "never"},
        ),
        "all_in_memory": (
            "The numbers are right, but you keep every micro-batch until one backward at the end. "
            "Memory is what accumulation saves: call backward in the loop, and each graph is gone "
            "before the next.",
            {"at_once": True},
        ),
    },
    {
        "the_last_loss": (
            "The loss that you return is the last micro-batch's alone. Add them up.",
            {"report": "last"},
        ),
    },
)


# Checkpoints


def _folders() -> Iterator[tuple[dict[str, str]]]:
    names = ("checkpoint-200", "checkpoint-80", "checkpoint-900", "checkpoint-1000")
    yield (dict.fromkeys(names, "whole"),)
    yield ({"checkpoint-300": "no manifest", "checkpoint-40": "torn", "checkpoint-5": "whole"},)
    yield ({"checkpoint-20": "torn", "checkpoint-3": "no manifest"},)
    yield ({"runs": "other", ".checkpoint-70-x1": "whole", "checkpoint-60": "whole"},)
    yield ({},)


def _watch_folder(function, content):
    """The name of what the function finds in a folder made of `content`, the newest written first.

    So the time at which a checkpoint was last touched says nothing about its step.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for age, (name, state) in enumerate(reversed(content.items())):
            _write_checkpoint(folder / name, state)
            os.utime(folder / name, (1e9 + age, 1e9 + age))
        is_none_whole = "whole" not in [s for name, s in content.items() if name[0] != "."]
        try:
            found = function(folder)
        except (ValueError, IndexError, FileNotFoundError, StopIteration):
            if is_none_whole:
                return Facts({"found": "an error"})
            raise
    return Facts({"found": Path(found).name}) if isinstance(found, (str, Path)) else found


def _write_checkpoint(folder: Path, state: str) -> None:
    """Nothing; a folder with a file, and with a manifest of its hash that is right if "whole"."""
    folder.mkdir()
    weights = folder.name.encode() * 50
    (folder / "model.safetensors").write_bytes(weights if state != "torn" else weights[:100])
    if state in ("whole", "torn"):
        manifest = {"model.safetensors": hashlib.sha256(weights).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    from course_utils.distill.checkpoints import find_trouble  # it brings transformers along

    return find_trouble(folder) is None


def _newest(
    folder: Path,
    *,
    order: Callable[[Path], Any] = lambda path: int(path.name.split("-")[1]),
    check: Callable[[Path], bool] = _is_whole,
    choose: Callable[[list[Path], Callable[[Path], bool]], list[Path]] = lambda paths, whole: [
        path for path in paths if whole(path)
    ],
    pick: int = -1,
    need_one: bool = False,
) -> Path | None:
    """The newest whole checkpoint, right by default; each option is a place to go wrong."""
    paths = sorted(Path(folder).glob("checkpoint-*"), key=order)
    whole = choose(paths, check)
    return whole[pick] if whole or need_one else None


@_watched(
    cases=_folders,
    watch=_watch_folder,
    returns="the path of a checkpoint, or None where none is whole,",
    hints=(
        "Which folders are checkpoints, which of them are whole, and which is the newest of those? "
        "One line each.",
        'folder.glob("checkpoint-*") has them in no order. Sort by the *number* in the name: as '
        'text, "checkpoint-900" comes after "checkpoint-1000".',
        'int(path.name.split("-")[1]) is the step. find_trouble(path) is None where a checkpoint '
        "is whole. And max(…, default=None) does not mind an empty list.",
    ),
)
def newest_valid(folder: Path) -> Path | None:
    """The path of the newest checkpoint that is whole, None where there is none."""
    return _newest(folder)


_add_slips(
    newest_valid,
    _newest,
    {
        "sorted_as_text": (
            "You compare the names as text, where “checkpoint-900” comes after “checkpoint-1000”, "
            "because 9 comes after 1. Compare the numbers.",
            {"order": lambda path: path.name},
        ),
        "by_time": (
            "You go by the time at which a folder was last changed. A copy, for example from "
            "Drive, has a new time. The step is in the name.",
            {"order": lambda path: path.stat().st_mtime},
        ),
        "the_oldest": (
            "You take the oldest checkpoint that is whole: the list begins with the smallest step.",
            {"pick": 0},
        ),
    },
    {
        "torn_accepted": (
            "You take a folder whether it is whole or not. A run that was killed, or a disk that "
            "was full, can leave a torn one. find_trouble(path) is None for a whole one.",
            {"check": lambda path: True},
        ),
        "a_manifest_is_enough": (
            "You ask whether there is a manifest, and not whether the files are what it says. A "
            "file can be torn after it was written. find_trouble compares the hashes.",
            {"check": lambda path: (path / "manifest.json").exists()},
        ),
    },
    {
        "raises_where_there_is_none": (
            "Where no checkpoint is whole your function stops with an error. A run that begins "
            "has none yet: return None.",
            {"need_one": True},
        ),
    },
)
_add_slips(
    newest_valid,
    _newest,
    {
        "gives_up_at_a_torn_one": (
            "The newest checkpoint is torn, and you give up. Go on to the one before it: that is "
            "what it was kept for.",
            {"choose": lambda paths, whole: [path for path in paths[-1:] if whole(path)]},
        ),
    },
)
