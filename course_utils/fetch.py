"""Filling this machine's caches beforehand, so that a lesson waits for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from course_utils import machine
from course_utils.data import pydocs
from course_utils.data.corpus import read_corpus
from course_utils.data.sources import Found, find_data, find_model
from course_utils.errors import DataError, ModelError


def fetch(
    *,
    models: Sequence[str] = (),
    data: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> list[Path]:
    """What lies in the course's cache and can be carried to another machine: folders and files.

    The weights are checked; PyDocs and the teachers of this machine's profile are made if they are
    not there. `models` and `data` are named sets of the mirror or the Hub; `ModelError` or
    `DataError` when one cannot be had. Interrupted, it goes on after the last part that was done.
    """
    started = time.monotonic()
    find_model(say=say)
    for name in models:
        _had(find_model(name, say=say), name, ModelError)
    for name in data:
        _had(find_data(name, say=say), name, DataError)
    there = pydocs.corpus_folder().exists()
    texts = len(pydocs.corpus())
    say(f"PyDocs: {texts:,} texts, {'there already' if there else 'built now'}")
    parts = [pydocs.corpus_folder(), *_teachers(say)]
    say(f"All is there, for the profile {machine.profile()}: {time.monotonic() - started:.0f} s.")
    return parts


def _had(found: Found, name: str, kind: type[ModelError] | type[DataError]) -> None:
    """Nothing; a lesson may take what the course brought instead, but here this one is wanted."""
    if found.name != name:
        raise kind(f"{name} cannot be had: {found.note or found}.", do="Try it again online.")


def _teachers(say: Callable[[str], object]) -> list[Path]:
    """The folders of both prepared teachers, the record beside them, and the blocks of one."""
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from course_utils import prepared
    from course_utils.data.blocks import to_blocks

    disable_progress_bar()
    quiet = lambda line: None  # noqa: E731
    folders = [prepared.pydocs_teacher(say=say), prepared.masked_lm_teacher(say=say)]
    tokenizer = AutoTokenizer.from_pretrained(folders[1])
    blocks = to_blocks(
        read_corpus("pydocs", say=quiet), tokenizer, length=prepared.MLM_LENGTH, say=quiet
    )
    packed = Path(blocks.cache_files[0]["filename"]).parent
    return [*folders, folders[0].parent / "run.json", packed]
