"""Graphs with small weights: integers where they belong, the same answers, the old model kept."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from course_utils.compress.calibration_ranges import min_max
from course_utils.compress.onnx_graph import (
    linears_to_int4,
    linears_to_static_int8,
    observe_graph,
    ready,
    tables_to_int8,
)
from course_utils.compress.quantization import affine, quantize_tensor
from course_utils.ship.runtime import OnnxClassifier, open_session, run

INT8, UINT8, FLOAT = TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT


@pytest.fixture(scope="module")
def graph(tiny_onnx):
    return ready(onnx.load(tiny_onnx["fp32"][0] / "model.onnx"))


@pytest.fixture(scope="module")
def batches(tiny_onnx, some_texts):
    classifier = OnnxClassifier(tiny_onnx["fp32"][0])
    return [classifier.encode([text]) for text in some_texts[:16]]


@pytest.fixture(scope="module")
def ranges(graph, batches):
    return {name: min_max(seen) for name, seen in observe_graph(graph, batches).items()}


def logits(model, batches):
    onnx.checker.check_model(model)
    session = open_session(model.SerializeToString())
    return np.concatenate([run(session, batch) for batch in batches])


def matrices(model, kind):
    """Names of constants of this type with two dimensions, neither of them 1."""
    return {
        t.name for t in model.graph.initializer
        if t.data_type == kind and len(t.dims) == 2 and min(t.dims) > 1
    }  # fmt: skip


def count(model, op):
    return sum(node.op_type == op for node in model.graph.node)


def test_ready_changes_no_answer_and_leaves_no_notes(tiny_onnx, graph, batches):
    before = onnx.load(tiny_onnx["fp32"][0] / "model.onnx")
    np.testing.assert_allclose(logits(before, batches), logits(graph, batches), atol=1e-5)
    assert not graph.graph.value_info
    assert count(before, "Gemm") == 2
    assert count(graph, "Gemm") == 0


def test_tables_are_rows_of_integers(graph, batches):
    before = graph.SerializeToString()
    new = tables_to_int8(graph)
    assert graph.SerializeToString() == before
    tables = {f"model.bert.embeddings.{kind}_embeddings.weight" for kind in
              ("word", "position", "token_type")}  # fmt: skip
    assert matrices(new, INT8) == {f"{table}_quantized" for table in tables}
    assert not tables & matrices(new, FLOAT)
    words = "model.bert.embeddings.word_embeddings.weight"
    old, now = (
        {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for model in (graph, new)
    )
    table = torch.tensor(old[words])
    expected = quantize_tensor(table, affine(table, symmetric=True, dim=0))
    np.testing.assert_array_equal(now[f"{words}_quantized"], expected.numpy())
    assert now[f"{words}_scale"].shape == (120, 1)
    change = np.abs(logits(new, batches) - logits(graph, batches)).max()
    assert 1e-4 < change < 0.5
    assert [p.value for p in new.metadata_props] == [p.value for p in graph.metadata_props]


def test_a_table_that_is_read_twice_is_left():
    """As a tied decoder reads it; the float numbers would have to stay beside the integers."""
    info = helper.make_tensor_value_info
    table = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "table")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Transpose", ["table"], ["turned"]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    inputs, outputs = [info("ids", TensorProto.INT64, [2])], [info("y", FLOAT, [2, 4])]
    model = helper.make_model(helper.make_graph(nodes, "tied", inputs, outputs, [table]))
    assert tables_to_int8(model) == model


def test_static_layers_are_products_of_integers(graph, batches, ranges, tmp_path):
    before = graph.SerializeToString()
    new = linears_to_static_int8(graph, ranges)
    assert graph.SerializeToString() == before
    assert len(matrices(new, INT8)) == 4 * 6 + 2
    assert len(ranges) == count(new, "QuantizeLinear") == 4 * 4 + 2  # q, k and v read the same
    theirs, ours = logits(graph, batches), logits(new, batches)
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.99
    assert np.abs(theirs - ours).max() > 1e-3


def test_onnx_runtime_makes_integer_products_of_them(graph, ranges, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    model = linears_to_static_int8(graph, ranges).SerializeToString()
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    # Pooler and head read one vector per text; of those products it makes float ones again.
    assert count(optimized, "MatMulIntegerToFloat") == 4 * 6


def test_a_narrow_range_clips(graph, batches, ranges):
    narrow = {name: (low / 50, high / 50) for name, (low, high) in ranges.items()}
    expected = logits(graph, batches)
    good, bad = (
        np.abs(logits(linears_to_static_int8(graph, r), batches) - expected).mean()
        for r in (ranges, narrow)
    )
    assert bad > 3 * good


def test_weights_keep_7_bits_on_request(graph, ranges):
    new = linears_to_static_int8(graph, ranges, weight_bits=7)
    int8 = [numpy_helper.to_array(t) for t in new.graph.initializer if t.data_type == INT8]
    assert max(np.abs(t.astype(int)).max() for t in int8) == 63


def test_int4_packs_two_weights_into_a_byte(graph, batches):
    before = graph.SerializeToString()
    new = linears_to_int4(graph)
    assert graph.SerializeToString() == before
    assert count(new, "MatMulNBits") == 4 * 6 + 2
    packed = [t for t in new.graph.initializer if t.data_type == UINT8]
    assert sum(np.prod(t.dims) for t in packed) >= (4 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32) / 2
    assert sum(np.prod(t.dims) for t in packed) < 4 * (4 * 32 * 32 + 2 * 32 * 64)
    theirs, ours = logits(graph, batches), logits(new, batches)
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.5  # 15 values for each weight
