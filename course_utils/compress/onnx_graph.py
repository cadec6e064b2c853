"""The weights of an ONNX model as small integers, where ONNX Runtime's own tools fall short.

Each function returns a new model. The weights of what was a linear layer are the second input of a
MatMul, (K, M), and those of an embedding table the first input of a Gather, (V, H).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel
from torch import Tensor

from course_utils.compress.calibration_ranges import Observed, summarise
from course_utils.compress.quantization import QParams, affine, from_range, quantize_tensor

BLOCK = 32  # weights that share a scale when they have 4 bits


def ready(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every linear layer is a MatMul and an Add, without the exporter's notes.

    Those notes on types would be out of date after quantization.
    """
    new = ONNXModel(_copy(model))
    new.replace_gemm_with_matmul()
    new.clean_initializers()
    del new.model.graph.value_info[:]
    return new.model


def tables_to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with embedding tables of int8 numbers, one scale per row.

    A row is looked up, made float and multiplied by its scale, so that only the rows in use are
    ever float again. A table that something else reads, too, as a tied decoder does, is left.
    """
    new = _copy(model)
    weights = _weights(new)
    readers = [name for node in new.graph.node for name in node.input]
    nodes: list[NodeProto] = []
    for node in new.graph.node:
        table = node.input[0] if node.op_type == "Gather" else ""
        if table not in weights or readers.count(table) > 1:
            nodes.append(node)
            continue
        q = affine(weights[table], symmetric=True, dim=0)
        _add(new, f"{table}_quantized", quantize_tensor(weights[table], q))
        _add(new, f"{table}_scale", q.scale)  # (V, 1)
        ids, rows = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [f"{table}_quantized", ids], [f"{rows}_int8"]),
            helper.make_node("Cast", [f"{rows}_int8"], [f"{rows}_cast"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table}_scale", ids], [f"{rows}_row_scale"]),
            helper.make_node("Mul", [f"{rows}_cast", f"{rows}_row_scale"], [rows]),
        ]
    return _with_nodes(new, nodes)


def linears_to_static_int8(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], *, weight_bits: int = 8
) -> onnx.ModelProto:
    """The model with int8 weights, a scale per output, and inputs of a range known beforehand.

    `ranges` are those of each tensor that `observe_graph` names. Written with QuantizeLinear and
    DequantizeLinear around every product: the form that all engines for ONNX read, and from which
    ONNX Runtime makes products of integers.
    """
    new = _copy(model)
    weights = _weights(new)
    nodes: list[NodeProto] = []
    done: set[str] = set()
    for node in new.graph.node:
        if not _is_linear(node, weights):
            nodes.append(node)
            continue
        x, w = node.input
        if x not in done:
            done.add(x)
            nodes += _through_integers(new, x, from_range(*ranges[x], symmetric=False))
        q = affine(weights[w], bits=weight_bits, symmetric=True, dim=1)  # (1, M)
        _add(new, f"{w}_quantized", quantize_tensor(weights[w], q))
        nodes.append(_dequantize(new, w, f"{w}_quantized", q, axis=1))
        node.input[:] = [f"{x}_dequantized", f"{w}_dequantized"]
        nodes.append(node)
    return _with_nodes(new, nodes)


def linears_to_int4(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights of 4 bits, a scale for each 32 of them, by ONNX Runtime's quantizer.

    Activations stay float for the outside; its kernel multiplies 8-bit ones with the weights.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        _copy(model), block_size=BLOCK, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    return quantizer.model.model


def observe_graph(
    model: onnx.ModelProto, batches: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Observed]:
    """What goes into each linear layer of a graph, by the tensor's name; see `observe`.

    The batches are read twice, and must hold no padding: one text each.
    """
    watched = _copy(model)
    weights = _weights(watched)
    linears = [node for node in watched.graph.node if _is_linear(node, weights)]
    names = list(dict.fromkeys(node.input[0] for node in linears))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    watched.graph.output.extend(outputs)
    bytes_ = watched.SerializeToString()
    session = onnxruntime.InferenceSession(bytes_, providers=["CPUExecutionProvider"])

    def inputs() -> Iterator[tuple[str, Tensor]]:
        for batch in batches:
            for name, values in zip(names, session.run(names, dict(batch)), strict=True):
                yield name, torch.from_numpy(values).flatten(0, -2)  # (N, K)

    return summarise(inputs)


def _is_linear(node: NodeProto, weights: Mapping[str, Tensor]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in weights


def _weights(model: onnx.ModelProto) -> dict[str, Tensor]:
    """The float matrices among the constants, by name."""
    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT
    }


def _through_integers(model: onnx.ModelProto, x: str, q: QParams) -> list[NodeProto]:
    """Nodes that make integers of `x` and floats of these, under the name `x`_dequantized."""
    dequantize = _dequantize(model, x, f"{x}_integers", q)
    quantize = helper.make_node("QuantizeLinear", [x, *dequantize.input[1:]], [f"{x}_integers"])
    return [quantize, dequantize]


def _dequantize(
    model: onnx.ModelProto, name: str, integers: str, q: QParams, **axis: int
) -> NodeProto:
    zero = q.zero_point.to(torch.int8 if q.signed else torch.uint8)
    _add(model, f"{name}_scale", q.scale.squeeze())
    _add(model, f"{name}_zero_point", zero.squeeze())
    inputs = [integers, f"{name}_scale", f"{name}_zero_point"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantized"], **axis)


def _add(model: onnx.ModelProto, name: str, tensor: Tensor) -> None:
    model.graph.initializer.append(numpy_helper.from_array(tensor.contiguous().numpy(), name))


def _with_nodes(model: onnx.ModelProto, nodes: Iterable[NodeProto]) -> onnx.ModelProto:
    """The model with these nodes, and without the constants that none of them reads."""
    kept = [_copy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    used = [_copy(t) for t in model.graph.initializer if t.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)
    return model


def _copy(message):
    new = type(message)()
    new.CopyFrom(message)
    return new
