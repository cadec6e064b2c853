"""A classifier that ONNX Runtime runs. Needs no PyTorch: this is what goes to a small machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
from tokenizers import Tokenizer

from course_utils.errors import CourseError, ModelError
from course_utils.models.protocol import Classifier, labels_of, need_files

try:
    import onnxruntime
except ImportError as error:
    raise CourseError(
        "ONNX Runtime is not installed.", do="pip install 'shrinking-bert[onnx]'"
    ) from error

FILES = ("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json")


class OnnxClassifier(Classifier):
    """A folder as `to_onnx` writes it, loaded by ONNX Runtime on the CPU.

    `threads`: see `default_threads`. Raises `ModelError` when the folder lacks a file or ONNX
    Runtime cannot read the model.
    """

    def __init__(self, folder: str | Path, *, name: str | None = None, threads: int | None = None):
        folder = need_files(folder, FILES)
        config, tokenizer = _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
        self.name = name or folder.name
        self.labels = labels_of(config["id2label"])
        self.max_length = min(tokenizer["model_max_length"], config["max_position_embeddings"])
        self.pad_token_id = config["pad_token_id"]
        self.session = open_session(folder / "model.onnx", threads)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.max_length)
        self.tokenizer.no_padding()  # whatever the file says: batches are padded in `encode`

    @property
    def threads(self) -> int:
        return self.session.get_session_options().intra_op_num_threads

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

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
    """As many as PyTorch uses, where it is loaded; else `OMP_NUM_THREADS`, else physical cores."""
    if torch := sys.modules.get("torch"):
        return torch.get_num_threads()
    return int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count(logical=False) or 1)


def _json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))
