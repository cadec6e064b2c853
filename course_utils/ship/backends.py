"""A quantized classifier from whatever this machine has: one call that outlives its libraries.

The function that quantized a BERT in one line has moved twice, and what has its name in a notebook
breaks. Here a *method* has a name; which library does it, and why that one, is part of the answer.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from course_utils.compress import torch_backends
from course_utils.compress.available import DTYPES, METHODS, choose, slower_here
from course_utils.compress.calibration_ranges import RANGES
from course_utils.compress.int8 import need_plain
from course_utils.compress.quantization import INT8_DOT_PRODUCT
from course_utils.distill.trainer import quiet
from course_utils.errors import DataError, ModelError, OutputError
from course_utils.files import is_of_a_model, new_folder, refuse_loss
from course_utils.machine import describe
from course_utils.models.classifier import TorchClassifier
from course_utils.models.protocol import Classifier

FEW_TEXTS = 32  # fewer show too little of what activations can be


@dataclass(frozen=True)
class Quantized:
    """A quantized classifier, who made it and why. Its `classifier` can be measured like any other.

    `path` is its folder, None if it lives in memory only; without `out` the folder lasts as long as
    this object. `size_mb` is 10^6 bytes on disk of the weights alone.
    """

    classifier: Classifier
    method: str
    backend: str
    why: str
    warnings: tuple[str, ...]
    size_mb: float
    path: Path | None
    _scratch: tempfile.TemporaryDirectory | None = field(default=None, repr=False)

    def predict(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Logits (N, C), float32, in the order of the texts."""
        return self.classifier.predict(texts, batch_size)

    def __str__(self) -> str:
        lines = [f"{self.method}: {self.why}, {self.size_mb:.1f} MB"]
        return "\n".join([*lines, *(f"  note: {warning}" for warning in self.warnings)])


def quantize(
    model: PreTrainedModel | str | Path,
    method: str,
    *,
    backend: str = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    texts: Sequence[str] | None = None,
    calibration: str = "min-max",
    out: str | Path | None = None,
) -> Quantized:
    """A new classifier of smaller numbers, made from a model in memory or a classifier folder.

    `method` is one of `METHODS`: "dynamic-int8", "static-int8", "weight-int4" (embedding tables get
    8 bits in all three), "bf16", "fp16". The first of its back-ends that works here is taken, or
    the one that is named. A model in memory needs its `tokenizer`; "static-int8" needs `texts`, a
    hundred or more like those to come, whose activations' ranges are cut by `calibration`
    ("min-max", "percentile", "entropy"). `out` is the folder to write.

    Raises `ModelError` for a method or back-end that does not exist, is not installed (with what to
    install) or cannot do it, for a model that is quantized already or no classifier; `DataError`
    for calibration texts that are missing or hold no word; `OutputError` when `out` would replace
    the model, or something else than a model.
    """
    _need_known(method, METHODS, "method")
    _need_known(calibration, RANGES, "calibration")
    name, why = choose(method, backend)
    source = _classifier(model, tokenizer)
    notes = [note for note in (slower_here(method),) if note]
    if method == "static-int8":
        notes += _check_calibration(source, texts)
    if name in ("torchao", "torch.ao"):
        return _in_memory(source, method, name, why, notes, out)
    scratch = None if out else tempfile.TemporaryDirectory()
    folder = Path(out or Path(scratch.name, method))
    made_from = model if isinstance(model, str | Path) else model.name_or_path
    refuse_loss(folder, is_of_a_model, keep=[made_from] if made_from else [])
    with quiet(), new_folder(folder) as work:
        if name == "torch":
            torch_backends.half(source.model, DTYPES[method]).save_pretrained(work)
            source.tokenizer.save_pretrained(work)
        else:
            _write_onnx(source, method, texts, calibration, work)
        size_mb = max(file.stat().st_size for file in work.iterdir()) / 1e6
    named = f"{source.name} {method}"
    return Quantized(
        _load(folder, method, named), method, name, why, tuple(notes), size_mb, folder, scratch
    )


def _classifier(
    model: PreTrainedModel | str | Path, tokenizer: PreTrainedTokenizerBase | None
) -> TorchClassifier:
    """The classifier to start from, float32 and a copy; raises `ModelError` if it is none."""
    if isinstance(model, str | Path):
        folder = Path(model)
        if (folder / "model.onnx").is_file() and not (folder / "model.safetensors").is_file():
            raise ModelError(
                "This folder holds an ONNX model, which may be quantized already.",
                where=folder,
                do="Give the PyTorch folder that it was made from.",
            )
        return TorchClassifier(folder)
    need_plain(model)
    if not type(model).__name__.endswith("ForSequenceClassification"):
        raise ModelError(
            f"A {type(model).__name__} gives no logits for a text.",
            do="Give a classifier: a ...ForSequenceClassification model.",
        )
    if tokenizer is None:
        raise ModelError("A model in memory needs its tokenizer.", do="Add tokenizer=….")
    if len(tokenizer) > model.config.vocab_size:
        raise ModelError(
            f"The tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}.",
            do="Give the tokenizer that was trimmed with the model.",
        )
    return TorchClassifier.of(copy.deepcopy(model).float().cpu(), tokenizer, name="model")


def _check_calibration(source: TorchClassifier, texts: Sequence[str] | None) -> list[str]:
    """Notes on the texts; raises `DataError` if there are none, or no word is in them."""
    do = "Give texts=[…], a hundred or more like those the model will read."
    if texts is None or isinstance(texts, str) or not len(texts):
        raise DataError("static-int8 has to see texts before it can fix the ranges.", do=do)
    special = set(source.tokenizer.all_special_ids)
    if all(special.issuperset(ids) for ids in source.token_ids(texts)):
        raise DataError(f"The {len(texts)} calibration texts hold no word.", do=do)
    few = len(texts) < FEW_TEXTS
    return [f"The ranges come from {len(texts)} texts; a hundred or more are better."] * few


def _write_onnx(
    source: TorchClassifier, method: str, texts: Sequence[str] | None, calibration: str, work: Path
) -> None:
    """Nothing; the folder `work` holds the quantized model as `OnnxClassifier` reads it."""
    import onnx  # it may not be installed; so these are imported where it is known to be there

    from course_utils.compress import onnx_graph
    from course_utils.ship.onnx import quantize as dynamic_int8
    from course_utils.ship.onnx import to_onnx

    with tempfile.TemporaryDirectory() as scratch:
        source.model.save_pretrained(scratch)
        source.tokenizer.save_pretrained(scratch)
        to_onnx(scratch, work, int8=False)
    file = work / "model.onnx"
    if method == "dynamic-int8":
        dynamic_int8(file, file)
        return
    graph = onnx_graph.ready(onnx.load(file))
    if method == "weight-int4":
        graph = onnx_graph.linears_to_int4(graph)
    else:
        batches = [source.encode([text]) for text in texts]
        seen = onnx_graph.observe_graph(graph, batches)
        ranges = {name: RANGES[calibration](observed) for name, observed in seen.items()}
        # Without 8-bit dot products, sums of two products of 8 bits each would overflow.
        bits = 8 if INT8_DOT_PRODUCT & set(describe().cpu_features) else 7
        graph = onnx_graph.linears_to_static_int8(graph, ranges, weight_bits=bits)
    file.write_bytes(onnx_graph.tables_to_int8(graph).SerializeToString())


def _load(folder: Path, method: str, name: str) -> Classifier:
    if method in DTYPES:
        return TorchClassifier(folder, name=name, dtype=DTYPES[method])
    from course_utils.ship.runtime import OnnxClassifier

    return OnnxClassifier(folder, name=name)


def _in_memory(
    source: TorchClassifier,
    method: str,
    backend: str,
    why: str,
    notes: list[str],
    out: str | Path | None,
) -> Quantized:
    if out is not None:
        raise OutputError(
            f"{backend} can only save pickles, which this course does not load.",
            where=out,
            do='Leave out=… away, or install ONNX Runtime and take backend="onnxruntime".',
        )
    if backend == "torchao":
        model = torch_backends.torchao(source.model, bits=4 if method == "weight-int4" else 8)
    else:
        model = torch_backends.torch_ao(source.model)
    named = f"{source.name} {method}"
    classifier = TorchClassifier.of(model, source.tokenizer, name=named)
    size_mb = torch_backends.saved_mb(model)
    return Quantized(classifier, method, backend, why, tuple(notes), size_mb, None)


def _need_known(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise ModelError(f"There is no {what} {name!r}.", do=f"Take one of: {', '.join(known)}.")
