"""How big a model is: on disk, in parameters, and in memory while it works."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from course_utils.errors import CourseError, ModelError

if TYPE_CHECKING:
    from torch import nn

    from course_utils.models.protocol import Classifier

MODEL_FILES = ("model.safetensors", "model.onnx")


def size_mb(path: str | Path) -> float:
    """10^6 bytes of the model file alone: of this file, or of the one in this folder."""
    return _model_file(path).stat().st_size / 1e6


def parameters(model: nn.Module | str | Path) -> int:
    """The number of parameters of a model in memory, a model file, or a folder with one.

    An 8-bit parameter counts as one; the scales and zero points of quantization do not count.
    """
    if not isinstance(model, str | Path):
        return sum(parameter.numel() for parameter in model.parameters())
    file = _model_file(model)
    return _in_onnx(file) if file.suffix == ".onnx" else _in_safetensors(file)


def peak_memory_mb(
    kind: Callable[[str], Classifier], folder: str | Path, texts: Sequence[str]
) -> float:
    """10^6 bytes a new process holds at its peak: it loads `kind(folder)` and predicts, batch 32.

    `kind` is a class or a function of a module. Python itself and the libraries that the classifier
    imports are part of it. Raises `ModelError` with the last words of the process when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, kind.__module__, kind.__name__, str(folder)],
        input=json.dumps(list(texts)),
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise ModelError(
            f"Memory could not be measured: {(done.stderr.splitlines() or ['killed'])[-1]}",
            where=folder,
            do="Check that the folder loads and that there is enough free memory.",
        )
    return float(done.stdout.split()[-1])


def _model_file(path: str | Path) -> Path:
    path = Path(path)
    files = [path] if path.is_file() else [path / name for name in MODEL_FILES]
    for file in files:
        if file.is_file():
            return file
    raise ModelError(
        "There is no model file here.", where=path, do=f"Looked for {' and '.join(MODEL_FILES)}."
    )


def _in_safetensors(file: Path) -> int:
    """Read from the header alone: its length in the first 8 bytes, then JSON with all shapes."""
    with open(file, "rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")


def _in_onnx(file: Path) -> int:
    """What `ship.onnx.export` noted, since exporters merge and drop weights; else a count."""
    import onnx

    model = onnx.load(file)
    for note in model.metadata_props:
        if note.key == "parameters":
            return int(note.value)
    weights = {"FLOAT", "FLOAT16", "BFLOAT16", "INT8", "UINT8"}  # shapes and indices are INT64
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.dims  # a bare number is a constant of the formula
        and onnx.TensorProto.DataType.Name(tensor.data_type) in weights
        and not tensor.name.endswith(("_scale", "_zero_point"))
    )


def own_peak_memory_mb() -> float:
    """10^6 bytes of memory this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `resource`: there, Linux counts the parent's memory from before this program started.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def _main(module: str, kind: str, folder: str) -> None:
    texts = json.load(sys.stdin)
    try:
        getattr(importlib.import_module(module), kind)(folder).predict(texts)
    except CourseError as error:
        sys.exit(error.what)
    print(own_peak_memory_mb())


if __name__ == "__main__":
    _main(*sys.argv[1:])
