"""Which library will quantize here, and why that one; and whether it will be slow."""

from __future__ import annotations

import importlib

import torch

from course_utils.compress.quantization import INT8_DOT_PRODUCT
from course_utils.errors import ModelError
from course_utils.machine import describe

# Who can do it, in the order in which they are tried.
METHODS = {
    "dynamic-int8": ("onnxruntime", "torchao", "torch.ao"),
    "static-int8": ("onnxruntime",),
    "weight-int4": ("onnxruntime", "torchao"),
    "bf16": ("torch",),
    "fp16": ("torch",),
}
MODULES = {  # what a back-end needs to be there
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "torchao": ("torchao.quantization",),
    "torch.ao": ("torch.ao.quantization",),
    "torch": ("torch",),
}
INSTALL = {
    "onnxruntime": "pip install 'shrinking-bert[onnx]'",
    "torchao": "pip install torchao",
    "torch.ao": "PyTorch has given it up: pip install torchao",
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(method: str, backend: str = "auto") -> tuple[str, str]:
    """The back-end that will do it, and why, in one line; raises `ModelError` if none is here."""
    able = METHODS[method]
    if backend not in ("auto", *able):
        raise ModelError(
            f"{backend!r} does not do {method} here.",
            do=f'Take backend="auto" or one of: {", ".join(able)}.',
        )
    lacking = []
    for name in able if backend == "auto" else (backend,):
        lack = _lack(name)
        if lack is None:
            return name, _reason(name, method, backend, lacking)
        lacking.append((name, lack))
    raise ModelError(
        f"No back-end for {method}: {'; '.join(lack for _, lack in lacking)}.",
        do=" or ".join(INSTALL[name] for name, _ in lacking),
    )


def slower_here(method: str) -> str | None:
    """A sentence that says why this method will be slow on this machine; None if it need not be.

    What it really costs, `measure.speed.speed([before, quantized.classifier], texts)` shows.
    """
    machine = describe()
    if method in DTYPES:
        fast = {"bfloat16": "bf16", "float16": "fp16"}.get(machine.dtype)
        if method == fast:
            return None
        return f"{machine.cpu} has no fast {method}: expect half the bytes, but no less time."
    if INT8_DOT_PRODUCT & set(machine.cpu_features):
        return None
    return (
        f"{machine.cpu} has no 8-bit dot products (VNNI, AMX, or ARM's dotprod): expect a quarter "
        "of the bytes, but perhaps more time than in float32. Measure it."
    )


def _lack(backend: str) -> str | None:
    """What keeps a back-end from working here; None if nothing does."""
    try:
        for module in MODULES[backend]:
            importlib.import_module(module)
    except ImportError as error:
        return f"{backend} is not installed ({error.name or error} is missing)"
    except Exception as error:  # a library that does not fit this torch fails in its own way
        return f"{backend} does not load here ({type(error).__name__})"
    if backend == "torch.ao" and torch.backends.quantized.engine == "none":
        return "this PyTorch was built without torch.ao's kernels"
    return None


def _reason(name: str, method: str, backend: str, lacking: list[tuple[str, str]]) -> str:
    version = importlib.import_module(name.partition(".")[0]).__version__
    if backend != "auto":
        return f"{name} {version}, which was asked for"
    if lacking:
        return f"{name} {version}, since {'; '.join(lack for _, lack in lacking)}"
    if len(METHODS[method]) == 1:
        return f"{name} {version}, the only one that does it"
    return f"{name} {version}, the first choice of {', '.join(METHODS[method])}"
