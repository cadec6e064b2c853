"""From a classifier folder to one ONNX file, its parity with PyTorch, and its int8 version."""

from __future__ import annotations

import contextlib
import copy
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers import AutoConfig

from course_utils.compress.quantization import INT8_DOT_PRODUCT
from course_utils.data.padding import pad
from course_utils.errors import ModelError
from course_utils.files import is_of_a_model, new_folder, refuse_loss, write_bytes
from course_utils.machine import describe
from course_utils.models.classifier import FILES, TorchClassifier
from course_utils.models.protocol import need_files
from course_utils.ship.runtime import OnnxClassifier, open_session, run

OPSET = 20  # the first with Gelu as one operator
TOLERANCE = 1e-3  # largest difference between two logits that float arithmetic may explain


@dataclass(frozen=True)
class Parity:
    """How near the logits of an exported model are to PyTorch's, over batches of all shapes."""

    max_abs_diff: float
    where: str  # the batch with that difference
    agreement: float  # share of texts with the same class
    shapes: tuple[tuple[int, int], ...]  # texts and tokens of every batch

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.max_abs_diff:.1e} ({self.where}), "
            f"{self.agreement:.1%} same class, {len(self.shapes)} batches"
        )


class _Logits(nn.Module):
    """The graph that is exported: ids and mask in, logits out, in standard operators only."""

    def __init__(self, classifier: TorchClassifier):
        super().__init__()
        self.model = copy.deepcopy(classifier.model).float()
        # Fused attention has no ONNX operator at this opset; exported, it becomes a longer graph.
        self.model.set_attn_implementation("eager")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # A mask that is ready to be added, (B, 1, 1, S), is taken as it is; from a (B, S) mask the
        # model would build one, twenty operators long.
        hidden = 1 - attention_mask[:, None, None, :].float()
        return self.model(
            input_ids=input_ids, attention_mask=hidden * torch.finfo(torch.float32).min
        ).logits


def export(
    folder: str | Path, out_file: str | Path, *, check_texts: Sequence[str] | None = None
) -> Parity:
    """Parity with PyTorch of the ONNX file it writes from a classifier folder.

    The file holds everything (no external data); batch size and length are free. Batches of many
    shapes, and of `check_texts` if given, go through both. Raises `ModelError`, and writes
    nothing, when two logits differ by more than 1e-3.
    """
    classifier = TorchClassifier(folder)
    ids = torch.full((2, 5), classifier.pad_token_id)
    batch, length = Dim("batch"), Dim("length", max=classifier.model.config.max_position_embeddings)
    with _quiet():
        program = torch.onnx.export(
            _Logits(classifier).eval(),
            (ids, torch.ones_like(ids)),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            verbose=False,
        )
    program.model.metadata_props["parameters"] = str(classifier.model.num_parameters())
    model = program.model_proto.SerializeToString()
    session = open_session(model)
    parity = compare(classifier, lambda batch: run(session, batch), check_texts=check_texts)
    if not parity.max_abs_diff <= TOLERANCE:  # so that NaN is caught, too
        raise ModelError(
            f"The exported model differs from PyTorch: {parity}.",
            where=folder,
            do="Nothing was written. Try another version of torch or onnxruntime.",
        )
    write_bytes(out_file, model)
    return parity


def quantize(onnx_file: str | Path, out_file: str | Path) -> Path:
    """The file it writes: weights and embeddings as int8, activations quantized while it runs.

    Matrices have one scale per output channel, embedding tables one per row (dynamic quantization
    as in Zafrir et al. 2019, "Q8BERT", without its training). On a processor without 8-bit dot
    products matrices keep to 7 bits, since products of 8 would overflow there.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from course_utils.compress.onnx_graph import tables_to_int8

    model = onnx.load(onnx_file)
    del model.graph.value_info[:]  # the exporter's notes on types, out of date after quantization
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        quantize_dynamic(
            tables_to_int8(model),
            Path(scratch, "int8.onnx"),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=not INT8_DOT_PRODUCT & set(describe().cpu_features),
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return write_bytes(out_file, Path(scratch, "int8.onnx").read_bytes())


def to_onnx(
    folder: str | Path,
    out_folder: str | Path,
    *,
    int8: bool,
    check_texts: Sequence[str] | None = None,
) -> Parity:
    """Parity with PyTorch of the folder it writes, which `OnnxClassifier` loads.

    Raises `ModelError` as `export` does, `OutputError` when `out_folder` would replace the model or
    something else than a model. int8 is allowed to differ: its parity is reported.
    """
    folder, out_folder = Path(folder), Path(out_folder)
    need_files(folder, (*FILES, "tokenizer_config.json"))
    refuse_loss(out_folder, is_of_a_model, keep=[folder])
    with new_folder(out_folder) as work:
        parity = export(folder, work / "model.onnx", check_texts=check_texts)
        # With the defaults that save_pretrained leaves out: transformers will not be there to know.
        AutoConfig.from_pretrained(folder).to_json_file(work / "config.json", use_diff=False)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(folder / name, work / name)
        if int8:
            quantize(work / "model.onnx", work / "model.onnx")
            int8_logits = OnnxClassifier(work).logits
            parity = compare(TorchClassifier(folder), int8_logits, check_texts=check_texts)
    return parity


def compare(
    classifier: TorchClassifier,
    logits: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    *,
    check_texts: Sequence[str] | None = None,
) -> Parity:
    """Parity of `logits` with the classifier's, over batches of many shapes (see `_batches`)."""
    shapes, differences, same = [], [], []
    for batch in _batches(classifier, check_texts):
        theirs, ours = classifier.logits(batch), logits(batch)
        shapes.append(batch["input_ids"].shape)
        differences.append(float(np.abs(theirs - ours).max()))
        same.extend(theirs.argmax(1) == ours.argmax(1))
    worst = int(np.argmax(differences))  # NaN counts as the largest
    where = "{} texts of {} tokens".format(*shapes[worst])
    return Parity(differences[worst], where, float(np.mean(same)), tuple(shapes))


def _batches(
    classifier: TorchClassifier, texts: Sequence[str] | None
) -> Iterator[dict[str, np.ndarray]]:
    """Random ids of shapes from one text of one token to the longest; then the texts, 1 and 32."""
    draw = np.random.default_rng(0)
    longest = classifier.model.config.max_position_embeddings
    for lengths in ([1], [2], [longest], [3, 1], [7, 5, 2, 7, 1], [longest, longest // 2]):
        rows = [draw.integers(classifier.model.config.vocab_size, size=n) for n in lengths]
        yield pad(rows, classifier.pad_token_id)
    for size in (1, 32) if texts else ():
        for start in range(0, min(len(texts), 4 * size), size):
            yield classifier.encode(texts[start : start + size])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's and the quantizer's remarks on how they work inside."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
