"""PyDocs: English prose that every installation of this course holds, and a task made of it.

The docstrings of the packages the course depends on are read with `ast`; nothing is imported. The
paragraphs are a corpus for masked-language modelling, and their origin is a label: *which library
documents itself like this?* Libraries are never named in the text: each name reads "the library".
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from datasets import (
    Dataset,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    load_from_disk,
)
from tqdm.auto import tqdm

from course_utils.data import docstrings
from course_utils.files import new_folder
from course_utils.machine import cache_dir, describe

LABELS = (
    "matplotlib",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "stdlib",
    "torch",
    "transformers",
)
# More prose for the corpus, without a label.
OTHERS = (
    "accelerate",
    "datasets",
    "fsspec",
    "huggingface_hub",
    "ipython",
    "ipykernel",
    "ipywidgets",
    "joblib",
    "jupyter_client",
    "jupyter_server",
    "nbconvert",
    "nbformat",
    "networkx",
    "pillow",
    "pyarrow",
    "requests",
    "rich",
    "sympy",
    "tokenizers",
    "tornado",
    "tqdm",
    "traitlets",
    "typer",
)
MODULE_OF = {"scikit-learn": "sklearn", "pillow": "PIL", "ipython": "IPython"}
# The task takes texts up to this length, so many of each class, and so many without a label.
MOST_WORDS = 48
TRAIN_PER_CLASS, DEV_PER_CLASS, TEST_PER_CLASS, UNLABELLED = 1500, 160, 350, 12_000
FILES_AT_ONCE = 128  # that one process reads

_SKIPPED_FOLDERS = {"tests", "test", "testing", "benchmarks", "_vendor", "vendor", "externals"}
_SKIPPED_FOLDERS |= {"idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data", "lib-dynload"}
_SKIPPED_FOLDERS |= {"site-packages", "__pycache__"}


def _files_of(package: str) -> list[Path]:
    if package == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
    else:
        spec = importlib.util.find_spec(MODULE_OF.get(package, package))
        if spec is None or not spec.submodule_search_locations:
            return []
        root = Path(next(iter(spec.submodule_search_locations)))
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS)
        files += [Path(folder, name) for name in sorted(names) if _is_read(name)]
    return files


def _is_read(name: str) -> bool:
    """Python files; but transformers writes each modular_x.py out again as modeling_x.py."""
    return name.endswith(".py") and not name.startswith("modular_")


def corpus(*, progress: bool = True) -> Dataset:
    """Every paragraph once: columns `text`, `package` and `split` ("train", "dev", "test").

    Built on first use (under a minute on two cores), kept in the course's cache, and built again
    when an installed version changes. A text's split is decided by a hash of its letters, so it
    stays where it is when its neighbours change. A text that stands in two packages is left out:
    its origin is no answer to a question about origin.
    """
    folder = corpus_folder()
    if folder.exists():
        with contextlib.suppress(OSError, ValueError, KeyError):  # damaged: it is built again
            return load_from_disk(str(folder))
    with new_folder(folder) as work, _no_bars():
        _build(progress).save_to_disk(work)
    return load_from_disk(str(folder))


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Nothing; in the block `datasets` draws none: ours shows the work, and they stay on a page."""
    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def corpus_folder() -> Path:
    """Where the corpus of the versions installed here is kept, whether it is built or not."""
    return cache_dir() / "pydocs" / _key()


def _key() -> str:
    """What the corpus depends on: how files are read, which, and in what versions."""
    code = Path(docstrings.__file__).read_text(encoding="utf-8")
    parts = [code, LABELS, OTHERS, sorted(_SKIPPED_FOLDERS), versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """The version of every package that is read and is installed here.

    Without the local part, such as torch's +cpu: builds of one version have the same texts.
    """
    found = {"stdlib": platform.python_version()}
    for package in (*LABELS, *OTHERS):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package).partition("+")[0]
    return found


def _build(progress: bool) -> Dataset:
    sources = [(package, file) for package in (*LABELS, *OTHERS) for file in _files_of(package)]
    packages: dict[str, set[str]] = defaultdict(set)
    chunks = [sources[i : i + FILES_AT_ONCE] for i in range(0, len(sources), FILES_AT_ONCE)]
    bar = tqdm(desc="reading docstrings", total=len(sources), unit="file", disable=not progress)
    with bar, ThreadPoolExecutor(describe().physical_cores) as pool:
        for chunk, found in zip(chunks, pool.map(_read, chunks), strict=True):
            for (package, _), texts in zip(chunk, found, strict=True):
                for text in texts:
                    packages[text].add(package)
            bar.update(len(chunk))
    rows = [(text, *names) for text, names in sorted(packages.items()) if len(names) == 1]
    columns = {"text": [text for text, _ in rows], "package": [name for _, name in rows]}
    return Dataset.from_dict(columns | {"split": [split_of(text) for text, _ in rows]})


def _read(sources: list[tuple[str, Path]]) -> list[list[str]]:
    """The paragraphs of each file, read by a process of its own: parsing holds Python's lock.

    Not a process pool: that would run a learner's own script again in every worker. Isolated, so
    that no json.py or ast.py in the current folder gets in the way.
    """
    command = [sys.executable, "-I", docstrings.__file__]
    files = json.dumps([str(file) for _, file in sources])
    done = subprocess.run(command, input=files, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def split_of(text: str) -> str:
    """The split a text belongs to, by a hash of its letters: train 75 %, dev 8 %, test 17 %."""
    percent = _number(text) % 100
    return "train" if percent < 75 else "dev" if percent < 83 else "test"


def _number(text: str) -> int:
    letters = re.sub(r"[^a-z]", "", text.lower())
    return int.from_bytes(hashlib.sha256(letters.encode()).digest()[:8], "big")


def task_splits(*, progress: bool = True) -> tuple[dict[str, Dataset], list[str]]:
    """The splits "train", "dev" and "test", each with `text` and `label`; texts without a label.

    Every class has the same number of texts in a split, taken in the order of their hash; what a
    class has beyond that in its train share has its label forgotten, for the teacher to say.
    """
    wanted = {"train": TRAIN_PER_CLASS, "dev": DEV_PER_CLASS, "test": TEST_PER_CLASS}
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    columns = corpus(progress=progress).with_format("arrow")[:].to_pydict()
    for text, package, split in zip(*columns.values(), strict=True):
        if text.count(" ") < MOST_WORDS:
            texts[split, package].append(text)
    splits, unlabelled = {}, []
    for split, per_class in wanted.items():
        rows = []
        for label, package in enumerate(LABELS):
            ranked = sorted(texts[split, package], key=_number)
            rows += [(text, label) for text in ranked[:per_class]]
            unlabelled += ranked[per_class:] if split == "train" else []
        rows.sort(key=lambda row: _number(row[0]))
        splits[split] = Dataset.from_dict(
            {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        )
    return splits, sorted(unlabelled, key=_number)[:UNLABELLED]
