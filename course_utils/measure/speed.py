"""How long a text takes: all models in one run, on the same texts, turn by turn."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tqdm.auto import tqdm

from course_utils.errors import DataError, ModelError
from course_utils.models.protocol import Classifier

BATCH = 32
WARM_UP = 3  # calls before each block, not counted
PAUSE_S = 0.05  # before each block, so that no thread of the model before is still awake


def speed(
    classifiers: Sequence[Classifier],
    texts: Sequence[str],
    *,
    rounds: int = 5,
    progress: bool = False,
) -> list[dict[str, float | str]]:
    """One dict per classifier, with its `name` and what one run measured.

    `latency_ms_p50` and `latency_ms_p95`: milliseconds for one text at a time, over all texts and
    rounds; `throughput_32`: texts per second in batches of 32 in the texts' own order, padded to
    the longest of the batch, the median over rounds; `tokens_per_text`; `threads`. What is timed is
    token ids in, logits out: the ids are made beforehand, since tokenizing is the same work for
    all. In each round every classifier has one block of one-text calls and one of batches; who
    goes first changes from round to round, and the garbage collector is off.

    Fewer than 32 texts are repeated to fill a batch. Raises `DataError` when there is no text,
    `ModelError` when threads differ.
    """
    if not texts:
        raise DataError("There is no text to time.", do="Give a few hundred real texts.")
    if len({c.threads for c in classifiers}) > 1:
        raise ModelError(
            "Models with different numbers of threads cannot be compared: "
            f"{', '.join(f'{c.name} has {c.threads}' for c in classifiers)}.",
            do="Use torch.set_num_threads(n) and OnnxClassifier(folder, threads=n).",
        )
    singles = [[c.encode([text]) for text in texts] for c in classifiers]
    filled = list(texts) * math.ceil(BATCH / len(texts))
    starts = range(0, max(BATCH, len(texts)) - BATCH + 1, BATCH)  # full batches only
    batches = [[c.encode(filled[s : s + BATCH]) for s in starts] for c in classifiers]
    one_s = [[] for _ in classifiers]
    per_s = [[] for _ in classifiers]
    turns = [k for turn in range(rounds) for k in np.roll(range(len(classifiers)), -turn)]
    with _no_garbage_collection():
        for k in tqdm(turns, desc="speed", unit="block", disable=not progress):
            one_s[k] += _seconds(classifiers[k], singles[k])
            per_s[k].append(len(starts) * BATCH / sum(_seconds(classifiers[k], batches[k])))
    return [
        {
            "name": classifier.name,
            "latency_ms_p50": 1000 * float(np.percentile(one_s[k], 50)),
            "latency_ms_p95": 1000 * float(np.percentile(one_s[k], 95)),
            "throughput_32": float(np.median(per_s[k])),
            "tokens_per_text": float(np.mean([e["attention_mask"].sum() for e in singles[k]])),
            "threads": classifier.threads,
        }
        for k, classifier in enumerate(classifiers)
    ]


def _seconds(classifier: Classifier, encoded: Sequence[Mapping[str, np.ndarray]]) -> list[float]:
    """The seconds of one call for each of the encoded batches."""
    time.sleep(PAUSE_S)
    for batch in encoded[:WARM_UP]:
        classifier.logits(batch)
    seconds = []
    for batch in encoded:
        start = time.perf_counter()
        classifier.logits(batch)
        seconds.append(time.perf_counter() - start)
    return seconds


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
