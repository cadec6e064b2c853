"""Which back-end is taken, what is said about it, and what to install when there is none."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from course_utils.compress import available
from course_utils.compress.available import choose, slower_here
from course_utils.errors import ModelError
from course_utils.machine import describe


@pytest.fixture
def without(monkeypatch):
    """A function that makes modules impossible to import."""
    return lambda *names: [monkeypatch.setitem(sys.modules, name, None) for name in names]


@pytest.fixture
def features(monkeypatch):
    """A function that gives this machine a processor with other features, and another dtype."""

    def become(*names, dtype="float32"):
        machine = replace(describe(), cpu_features=names, cpu="Old CPU", dtype=dtype)
        monkeypatch.setattr(available, "describe", lambda: machine)

    return become


def test_the_first_that_is_there_is_taken_and_it_says_so(without):
    assert choose("dynamic-int8")[0] == "onnxruntime"
    without("onnxruntime", "torchao.quantization", "torchao")
    name, why = choose("dynamic-int8")
    assert name == "torch.ao"
    assert "onnxruntime is not installed" in why
    assert "torchao is not installed" in why
    assert "\n" not in why


def test_a_back_end_that_was_asked_for_is_not_replaced(without):
    without("torchao.quantization", "torchao")
    with pytest.raises(ModelError, match="torchao is not installed") as caught:
        choose("dynamic-int8", "torchao")
    assert caught.value.do == "pip install torchao"
    without("onnxscript")
    with pytest.raises(ModelError, match="onnxscript") as caught:
        choose("static-int8", "onnxruntime")
    assert caught.value.do == "pip install 'shrinking-bert[onnx]'"


def test_nothing_there_names_everything_to_install(without):
    without("onnx", "torchao.quantization", "torchao", "torch.ao.quantization")
    with pytest.raises(ModelError) as caught:
        choose("dynamic-int8")
    assert "shrinking-bert[onnx]" in caught.value.do
    assert "pip install torchao" in caught.value.do


def test_a_library_that_does_not_load_counts_as_missing(monkeypatch):
    def broken(name):
        if name == "torchao.quantization":
            raise AttributeError("torch has no attribute that I need")
        return sys.modules[name]

    monkeypatch.setattr(available.importlib, "import_module", broken)
    with pytest.raises(ModelError, match="does not load"):
        choose("dynamic-int8", "torchao")


def test_a_pytorch_without_kernels_is_passed_over(monkeypatch):
    pytest.importorskip("torch.ao.quantization")

    class Engine:
        engine = "none"

    monkeypatch.setattr(torch.backends, "quantized", Engine)
    with pytest.raises(ModelError, match="kernels"):
        choose("dynamic-int8", "torch.ao")


@pytest.mark.parametrize("name", ["avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm"])
def test_int8_with_dot_products_is_not(features, name):
    features("avx2", name)
    assert slower_here("dynamic-int8") is None


def test_a_half_precision_that_is_slow_here_is_warned_of(features):
    features(dtype="bfloat16")
    assert slower_here("bf16") is None
    assert "no fast fp16" in slower_here("fp16")
    features(dtype="float32")
    assert "no fast bf16" in slower_here("bf16")
