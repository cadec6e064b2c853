"""A classifier that ONNX Runtime runs. Needs no PyTorch: this is what goes to a small machine."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from course_utils.errors import CourseError, ModelError
from course_utils.models.protocol import Classifier, labels_of, need_files

try:
    import onnxruntime
except ImportError as error:
    raise CourseError(
        "ONNX Runtime is not installed.", do="pip install 'shrinking-bert[onnx]'"
    ) from error

MULTI_LABEL = "multi_label_classification"  # what transformers calls it in a configuration
CHARACTERS = 1000  # read per token that fits: a cell of 10 MB is no reason to split 10 MB
CONFIG = {"id2label": dict, "max_position_embeddings": int, "pad_token_id": int}  # it must say
KINDS = {dict: "an object", int: "a whole number"}  # as JSON calls them
FILES = ("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json")


class OnnxClassifier(Classifier):
    """A folder as `to_onnx` writes it, loaded by ONNX Runtime on the CPU.

    `threads`: see `default_threads`. `multi_label`: any number of classes may be right for one
    text. `n_cut` counts the texts that were longer than `max_length` so far. Raises `ModelError`
    when the folder lacks a file, or one of them cannot be read.
    """

    def __init__(self, folder: str | Path, *, name: str | None = None, threads: int | None = None):
        folder = need_files(folder, FILES)
        config = _json(folder / "config.json", **CONFIG)
        limits = _json(folder / "tokenizer_config.json", model_max_length=int)
        self.name = name or folder.name
        self.labels = labels_of(config["id2label"], where=folder / "config.json")
        self.multi_label = config.get("problem_type") == MULTI_LABEL
        self.max_length = min(limits["model_max_length"], config["max_position_embeddings"])
        self.pad_token_id = config["pad_token_id"]
        self.n_cut = 0
        self.tokenizer = _tokenizer(folder / "tokenizer.json")
        if self.max_length <= self.tokenizer.num_special_tokens_to_add(is_pair=False):
            raise _damaged(folder, f"a text is cut to {self.max_length} tokens")
        self.tokenizer.enable_truncation(self.max_length)
        self.tokenizer.no_padding()  # whatever the file says: batches are padded in `encode`
        self.session = open_session(folder / "model.onnx", threads)
        n_classes = self.session.get_outputs()[0].shape[-1]  # a name instead, if it may vary
        if n_classes != len(self.labels) and isinstance(n_classes, int):
            why = f"it names {len(self.labels)} classes, and the model has {n_classes}"
            raise _damaged(folder / "config.json", why)

    @property
    def threads(self) -> int:
        return self.session.get_session_options().intra_op_num_threads

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        longest = CHARACTERS * self.max_length
        # "fast": without the places of the tokens in the text, which nobody asks for
        encodings = self.tokenizer.encode_batch_fast([text[:longest] for text in texts])
        self.n_cut += sum(bool(encoding.overflowing) for encoding in encodings)
        return [encoding.ids for encoding in encodings]

    def logits(self, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        return run(self.session, encoded)


def open_session(model: Path | bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session of a file, or of a file's bytes. Raises `ModelError` if unreadable."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    # Idle threads wait for the next call inside a call only, so that they never take a core from
    # whoever works between two calls.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
            # The fused kernel is several times slower than the Add and LayerNormalization that
            # it replaces (measured with ONNX Runtime 1.31 on AVX-512).
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # each failure has a class of its own in ONNX Runtime
        raise ModelError(
            f"ONNX Runtime cannot read this model: {str(error).splitlines()[0]}",
            where=model if isinstance(model, Path) else None,
            do="The file may be cut short: export it again.",
        ) from error


def run(session: onnxruntime.InferenceSession, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
    """Logits (B, C), float32, of one encoded batch."""
    return session.run(["logits"], {k: encoded[k] for k in ("input_ids", "attention_mask")})[0]


def default_threads() -> int:
    """As many as PyTorch uses, where it is loaded; else `OMP_NUM_THREADS`, else one per core.

    Cores are physical ones this process may use; all of those it may use if psutil is missing.
    Raises `CourseError` when `OMP_NUM_THREADS` says no number.
    """
    if torch := sys.modules.get("torch"):
        return torch.get_num_threads()
    if not (wish := os.environ.get("OMP_NUM_THREADS", "").strip()):
        return _cores()
    first = wish.partition(",")[0].strip()  # "4,2": 2 would be for teams inside of teams
    if not re.fullmatch("[1-9][0-9]{0,3}", first):
        raise CourseError(
            f"{wish!a} is no number of threads.",
            where="OMP_NUM_THREADS",
            do="Set it to a number such as 4, or leave it unset.",
        )
    return int(first)


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        import psutil  # a small machine may do without
    except ImportError:
        return usable or 1
    return min(filter(None, (usable, psutil.cpu_count(logical=False))), default=1)


def _json(file: Path, **needed: type) -> dict:
    """The object in a file; raises `ModelError` unless it has these keys with such values."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        wrong = [key for key, kind in needed.items() if not isinstance(content.get(key), kind)]
    except (ValueError, AttributeError, RecursionError) as error:
        raise _damaged(file, error) from error
    if wrong:
        kinds = (f"{key} as {KINDS[needed[key]]}" for key in wrong)
        raise _damaged(file, f"it does not say {', '.join(kinds)}")
    return content


def _tokenizer(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers has no class of its own for it
        raise _damaged(file, error) from error


def _damaged(file: Path, why: object) -> ModelError:
    return ModelError(
        f"This file cannot be used: {why}.",
        where=file,
        do="It may be cut short or of another version: make the folder again.",
    )
