"""Whether a folder holds a whole model, with the weights it should hold, before it is loaded."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from course_utils.errors import ModelError
from course_utils.files import sha256

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
TOKENIZERS = {
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
}
MAX_HEADER_BYTES = 10**8  # the format's own limit


def check(folder: Path, *, expected: str | None = None, do: str | None = None) -> None:
    """Raises `ModelError` unless the folder is a whole model; the error says what is wrong.

    Whole: config.json, a tokenizer, and safetensors files as long as they say they are. `expected`
    is the SHA-256 of model.safetensors where it is known; `do` is how to get the model again.
    """
    if not folder.is_dir():
        raise ModelError(
            "This is a file." if folder.exists() else "There is no such folder.",
            where=folder,
            do="Give the folder that has config.json, a tokenizer and model.safetensors.",
        )
    lacks = missing(folder)
    if lacks == [WEIGHTS] and (folder / PICKLE).exists():
        raise ModelError(
            f"The weights are a pickle, {PICKLE}. Loading one can run any code, so the course "
            "never does.",
            where=folder,
            do="Use a version that has model.safetensors; `save_pretrained` writes one.",
        )
    if lacks:
        raise ModelError(
            f"This is not a whole model: {', '.join(lacks)} missing.",
            where=folder,
            do=do or "Copy what is missing beside the other files.",
        )
    for file in _weight_files(folder):
        if not _is_whole(file):
            raise ModelError(
                "This file is cut short or is not safetensors.",
                where=file,
                do=do or "Copy it anew.",
            )
    if expected is not None:
        _check_hash(folder / WEIGHTS, expected, do)


def missing(folder: Path) -> list[str]:
    """What a model folder lacks, in words; an empty list when it has all it needs."""
    here = {file.name for file in folder.iterdir()}
    lacks = [] if "config.json" in here else ["config.json"]
    if not here & TOKENIZERS:
        lacks.append("a tokenizer (tokenizer.json or vocab.txt)")
    return lacks + [file.name for file in _weight_files(folder) if not file.is_file()]


def _weight_files(folder: Path) -> list[Path]:
    """The files that should hold the weights: model.safetensors, or the parts an index names."""
    index = folder / INDEX
    if (folder / WEIGHTS).exists() or not index.exists():
        return [folder / WEIGHTS]
    try:
        parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / Path(part).name for part in sorted(parts)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError("This index of weight files cannot be read.", where=index) from None


def _is_whole(file: Path) -> bool:
    """Whether the file is as long as its own table of tensors says.

    A safetensors file is 8 bytes (how long the header is), the header in JSON, then the tensors.
    """
    size = file.stat().st_size
    try:
        with open(file, "rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(header_bytes, MAX_HEADER_BYTES)))
        ends = [header[key]["data_offsets"][1] for key in header if key != "__metadata__"]
        return size == 8 + header_bytes + max(ends)
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _check_hash(file: Path, expected: str, do: str | None) -> None:
    if file.is_file():
        status = file.stat()
        found = _sha256_once(file, status.st_size, status.st_mtime_ns)
    else:
        found = "not there, the weights are in parts"
    if found != expected:
        raise ModelError(
            "These are not the weights their name promises, so they were not loaded: the SHA-256 "
            f"should be {expected} but is {found}.",
            where=file,
            do=do,
        )


@lru_cache
def _sha256_once(file: Path, size: int, changed_ns: int) -> str:
    return sha256(file)
