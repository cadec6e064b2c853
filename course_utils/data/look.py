"""A look at a task before anything is trained: what is in it, and what may spoil the result."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from course_utils.data.encoding import MAX_LENGTH
from course_utils.data.tasks import Task, refuse_same_texts
from course_utils.errors import DataError

SAMPLE = 20_000  # texts whose tokens are counted
LONG = 10_000  # characters; the tokens of what follows are estimated
TEXTS_AT_ONCE = 1000
FEW, RARE, UNEVEN, UNKNOWN = 10, 5, 20, 0.05  # from here on a line is a warning


@dataclass(frozen=True)
class Look:
    """What a task holds; `lines()` are the words for it.

    Lengths are in tokens with [CLS] and [SEP], over train or 20,000 texts spread evenly over it;
    of a text beyond 10,000 characters the length is estimated from its beginning.
    """

    name: str
    sizes: dict[str, int]  # texts in train, dev and test
    classes: dict[str, int]  # texts of each class in train
    multi_label: bool
    without_label: int  # texts in train
    largest_to_smallest: float  # number of texts, of the classes that train has
    max_length: int
    median_length: float
    p95_length: float
    longest: int
    truncated_share: float  # 0 to 1
    duplicates: int  # texts in train beyond the first of their kind
    contradictions: int  # different texts in train that stand there with different labels
    also_in_train: dict[str, int]  # texts of dev and of test
    unknown_share: float  # of the words, that become [UNK], 0 to 1

    def as_dict(self) -> dict[str, object]:
        """All of it, ready for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What to say about it, in 8 to 11 short lines; a warning begins with "! "."""
        return [("! " if warning else "") + line for line, warning in self._said()]

    def _said(self) -> Iterator[tuple[str, bool]]:
        """Each line, and whether it is a warning."""
        train, dev, test = (self.sizes[split] for split in ("train", "dev", "test"))
        yield f"{self.name}: {train:,} texts to train on, {dev:,} dev, {test:,} test.", False
        yield from self._said_of_classes()
        yield (
            f"Tokens in a text: {self.median_length:,.0f} in the middle (median), 95 % have at "
            f"most {self.p95_length:,.0f}, the longest {self.longest:,}.",
            False,
        )
        cut = f"more than {self.max_length} tokens"
        share = f"{_percent(self.truncated_share)} of the texts have {cut}: their ends are cut off."
        yield (share, True) if self.truncated_share else (f"No text has {cut}.", False)
        n = self.duplicates
        yield _counted(n, "repeats an earlier one of train", "repeat earlier ones of train")
        n = self.contradictions
        yield _counted(n, "has different labels in train", "have different labels in train")
        n = sum(self.also_in_train.values())
        each = " and ".join(f"{n:,} of {split}" for split, n in self.also_in_train.items())
        yield (
            (f"Texts that are in train, too: {each}. Scores on them flatter.", True)
            if n
            else ("No text of dev or test is in train.", False)
        )
        yield (
            f"{_percent(self.unknown_share)} of the words are not in the vocabulary ([UNK]).",
            self.unknown_share > UNKNOWN,
        )

    def _said_of_classes(self) -> Iterator[tuple[str, bool]]:
        ranked = sorted(self.classes.items(), key=lambda item: -item[1])
        shown = ranked if len(ranked) <= 4 else [*ranked[:2], ("…", 0), *ranked[-2:]]
        each = ", ".join(f"{_short(name)} {n:,}" if n else _short(name) for name, n in shown)
        yield f"{len(ranked)} classes in train: {each}.", False
        if self.multi_label:
            per_text = sum(self.classes.values()) / self.sizes["train"]
            none = f"{self.without_label:,} have none"
            yield f"Multi-label: {per_text:.2f} labels a text on average, {none}.", False
        if self.largest_to_smallest >= UNEVEN:
            yield (
                f"The largest class has {self.largest_to_smallest:,.0f} times the texts of the "
                "smallest: accuracy says little here, look at macro F1.",
                True,
            )
        if few := [name for name, n in ranked if n < FEW]:
            rare = ", ".join(map(_short, few[:RARE])) + (" …" if len(few) > RARE else "")
            yield f"Fewer than {FEW} texts in train have: {rare} ({len(few)} in all).", True


def look(task: Task, tokenizer: PreTrainedTokenizerBase, *, max_length: int = MAX_LENGTH) -> Look:
    """What there is in the task, read with `tokenizer`; models read `max_length` tokens.

    Raises `DataError` if more than half of the dev or test texts are in train.
    """
    refuse_same_texts(task)
    texts, labels = list(task.train["text"]), list(task.train["label"])
    given = [row if task.multi_label else [row] for row in labels]
    counts = Counter(k for row in given for k in row)
    labels_of: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for text, row in zip(texts, given, strict=True):
        labels_of[text].add(tuple(row))
    lengths, unknown = _tokens(texts[:: -(-len(texts) // SAMPLE)], tokenizer)
    return Look(
        name=task.name,
        sizes={split: len(getattr(task, split)) for split in ("train", "dev", "test")},
        classes={name: counts[k] for k, name in enumerate(task.labels)},
        multi_label=task.multi_label,
        without_label=sum(not row for row in given),
        largest_to_smallest=max(counts.values()) / min(counts.values()),
        max_length=max_length,
        median_length=float(np.median(lengths)),
        p95_length=float(np.percentile(lengths, 95)),
        longest=int(lengths.max()),
        truncated_share=float((lengths > max_length).mean()),
        duplicates=len(texts) - len(labels_of),
        contradictions=sum(len(different) > 1 for different in labels_of.values()),
        also_in_train={
            split: sum(text in labels_of for text in getattr(task, split)["text"])
            for split in ("dev", "test")
        },
        unknown_share=unknown,
    )


def refuse_unknown(look: Look, most: float = 0.2) -> None:
    """Nothing; raises `DataError` if more than `most` of the words become [UNK]."""
    if look.unknown_share > most:
        raise DataError(
            f"{_percent(look.unknown_share)} of the words are not in the vocabulary: it does not "
            "know this language or script, and a model would see [UNK] in their place.",
            where=look.name,
            do="Give a model of this language with --teacher, or go on with --allow-unknown.",
        )


def _tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, float]:
    """Each text's number of tokens (N,), special ones included; the share of words unknown.

    A word begins with a piece that does not start with ##; WordPiece makes one [UNK] of a whole
    word that it cannot put together.
    """
    begins = np.ones(len(tokenizer), bool)
    for token, number in tokenizer.get_vocab().items():
        begins[number] = not token.startswith("##")
    begins[[k for k in tokenizer.all_special_ids if k != tokenizer.unk_token_id]] = False
    lengths: list[float] = []
    words = unknown = 0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[start : start + TEXTS_AT_ONCE]
        # Not `verbose`: it would warn of texts that are longer than the model reads.
        rows = tokenizer([text[:LONG] for text in some], truncation=False, verbose=False)
        rows = rows["input_ids"]
        lengths += [
            len(row) * max(1, len(text) / LONG) for row, text in zip(rows, some, strict=True)
        ]
        ids = np.concatenate([np.asarray(row, np.int64) for row in rows])
        words += int(begins[ids].sum())
        unknown += int((ids == tokenizer.unk_token_id).sum())
    return np.round(lengths), unknown / max(1, words)


def _counted(n: int, one: str, several: str) -> tuple[str, bool]:
    """How many texts there are of a kind; a warning if there is any."""
    return (
        (f"{n:,} {'text ' + one if n == 1 else 'texts ' + several}.", True)
        if n
        else (
            f"No text {one}.",
            False,
        )
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 or not share else "Less than 0.1%"


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
