"""What a shipped model says of a text, of lines as they come, of a table. Needs no PyTorch."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

import numpy as np

from course_utils.errors import CourseError, DataError, OutputError
from course_utils.files import check_writable
from course_utils.ship.rows import DEFAULT, Answer, has_mark, new_file, open_table
from course_utils.ship.runtime import OnnxClassifier

CHUNK = 512  # rows in memory at a time; among so many, texts of one length find each other
BATCH = 16  # of 8 to 128 the fastest on two cores: little padding, and it stays in the cache
SHOWN = 5  # classes of one text
STDIN = "-"


class Summary(NamedTuple):
    """What `predict_file` did."""

    rows: int
    empty: int  # texts without a word, which get no answer
    cut: int  # texts longer than the model reads
    seconds: float


def probabilities(logits: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Probabilities (N, C) of logits (N, C): over the classes, or of each class by itself."""
    logits = logits.astype(np.float64)
    if multi_label:
        return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    exps = np.exp(logits - logits.max(1, keepdims=True))
    return exps / exps.sum(1, keepdims=True)


def answers(classifier: OnnxClassifier, texts: Sequence[str], *, most: int = 1) -> list[Answer]:
    """For each text its classes, best first: the `most` likeliest, or, where any number may be
    right, those above 0.5. A text without a word gets an answer without a class."""
    several = classifier.multi_label
    empty = Answer((), (), several)
    found = [empty] * len(texts)
    real = [i for i, text in enumerate(texts) if text.strip()]
    if not real:
        return found
    logits = classifier.predict([texts[i] for i in real], BATCH)
    for i, probs in zip(real, probabilities(logits, multi_label=several), strict=True):
        best = np.argsort(-probs, kind="stable")
        best = best[probs[best] > 0.5] if several else best[:most]
        names = tuple(classifier.labels[k] for k in best)
        found[i] = Answer(names, tuple(map(float, probs[best])), several)
    return found


def predict_file(
    classifier: OnnxClassifier,
    file: str | Path,
    out: str | Path,
    *,
    column: str = DEFAULT,
    say: Callable[[str], object] = print,
) -> Summary:
    """What was done: `out` is the table `file` with a prediction and its probability in each row.

    The table is first read from end to end, then written in chunks, in its order; `out` takes its
    name when it is complete. The new columns are called `prediction_2` and `probability_2` (and so
    on) if the table has such columns already. Raises `DataError` for a table that cannot be used,
    `OutputError` when `out` cannot be written or is the table itself; nothing is written then.
    """
    file, out = Path(file), Path(out).resolve()
    table = open_table(file, column, say=say)
    _check_out(file, out)
    if table.new[0] != "prediction":
        say(f"{file.name} has such columns already: the new ones are {' and '.join(table.new)}.")
    started, cut_before, empty = time.perf_counter(), classifier.n_cut, 0
    with new_file(out, encoding="utf-8-sig" if has_mark(file) else "utf-8") as stream:
        stream.write(table.head())
        for rows in _with_bar(_chunks(table), table.n_rows):
            found = answers(classifier, [table.text(row) for row in rows])
            stream.writelines(map(table.line, rows, found))
            empty += sum(not table.text(row).strip() for row in rows)
    seconds = time.perf_counter() - started
    return Summary(table.n_rows, empty, classifier.n_cut - cut_before, seconds)


def predict_lines(classifier: OnnxClassifier, lines: BinaryIO, stream: TextIO) -> None:
    """Nothing; each line's class and its probability are written before the next line is read.

    A tab stands between them; where several classes may be right, `;` between those. An empty
    line, and a text that no class fits, gets a tab alone. Raises `DataError` for a line that is
    not UTF-8.
    """
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise DataError(
                "This line is not UTF-8 text.",
                where=f"standard input, line {number}",
                do="Convert it first, or save the texts as a table: --file finds the encoding.",
            ) from None
        (answer,) = answers(classifier, [text])
        probs = ";".join(f"{prob:.4f}" for prob in answer.probs)
        print(";".join(answer.labels), probs, sep="\t", file=stream, flush=True)


def main_command(
    folder: str | Path,
    text: str | None,
    *,
    file: str | Path | None,
    out: str | Path | None,
    column: str = DEFAULT,
) -> None:
    """Nothing; `course predict`: a text's classes, or those of each line of standard input, are
    printed; with `file`, those of every row go to `out`."""
    if (file is None) != (out is None):
        raise CourseError("--file and --out belong together.", do="Give both, or a text alone.")
    if file is not None and text is not None:
        raise CourseError("There is a text and a file.", do="Give one of the two.")
    classifier = OnnxClassifier(folder)
    if file is not None:
        summary = predict_file(classifier, file, out, column=column)
        print("\n".join(_words(summary, classifier, out)))
    elif text is not None and text != STDIN:
        print("\n".join(_readable(classifier, text)))
    else:
        _answer_stdin(classifier)


def _readable(classifier: OnnxClassifier, text: str) -> Iterator[str]:
    """One line per class."""
    if not text.strip():
        raise DataError("There is no word in this text.", do='Write it in quotes: "a text".')
    (answer,) = answers(classifier, [text], most=SHOWN)
    width = max(map(len, answer.labels), default=0)
    for label, prob in zip(answer.labels, answer.probs, strict=True):
        yield f"{label:{width}}  {prob:6.1%}"
    if not answer.labels:
        yield "none of the classes"
    if classifier.n_cut:
        yield f"(The text was cut: the model reads {classifier.max_length} tokens.)"


def _answer_stdin(classifier: OnnxClassifier) -> None:
    if sys.stdin.isatty():
        print("Write a text and press Enter; Ctrl-D ends.", file=sys.stderr)
    try:
        predict_lines(classifier, sys.stdin.buffer, sys.stdout)
    except BrokenPipeError:  # whoever read the answers has enough of them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _words(summary: Summary, classifier: OnnxClassifier, out: str | Path) -> Iterator[str]:
    rows, empty, cut, seconds = summary
    speed = f", {rows / seconds:,.0f} texts per second" if rows else ""
    yield f"{out}: {rows:,} rows in {seconds:.1f} seconds{speed}"
    if empty:
        yield f"{empty:,} without a text: they have no prediction"
    if cut:
        yield f"{cut:,} cut, for the model reads {classifier.max_length} tokens"


def _check_out(file: Path, out: Path) -> None:
    """Nothing; raises `OutputError` for a place that must not, or cannot, be written."""
    if file.exists() and out.exists() and out.samefile(file):
        raise OutputError("The table would be overwritten.", where=out, do="Choose another --out.")
    if out.exists() and not out.is_file():
        raise OutputError("This is not a file.", where=out, do="Choose a file for --out.")
    if out.suffix.lower() != file.suffix.lower():
        raise OutputError(
            "The answers are written in the format of the table.",
            where=out,
            do=f"Choose a name for --out that ends in {file.suffix}.",
        )
    check_writable(out.parent)


def _chunks(rows: Iterable) -> Iterator[list]:
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _with_bar(chunks: Iterable[list], n_rows: int) -> Iterable[list]:
    """The chunks, with a bar while they are worked on, if someone looks at the terminal."""
    if not sys.stderr.isatty():
        return chunks
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    total = math.ceil(n_rows / CHUNK)
    return track(chunks, "predict", total=total, console=console, transient=True)
