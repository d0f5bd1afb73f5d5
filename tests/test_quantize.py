"""An int8 graph is near the one that it was made of, and is made without advice that changes nothing."""

import logging
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from apn.backends import onnx_backend
from apn.quantize import write_int8


def test_an_int8_graph_is_made_quietly_and_rounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Words of others are still heard."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(2, 3, 3, 3)).astype(np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], name="convolution"),
        helper.make_node("GlobalAveragePool", ["features"], ["mean"], name="pool"),
        helper.make_node("Flatten", ["mean"], ["logits"], name="flat"),
    ]
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 16, 16])]
    outs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])]
    opsets = [helper.make_opsetid("", 18)]
    graph, out = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    save(
        helper.make_model(helper.make_graph(nodes, "mean", ends, outs, [weight]), opset_imports=opsets, ir_version=9),
        graph,
    )
    crops = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    write_int8(graph, out, crops)
    assert [record.getMessage() for record in caplog.records] == []
    logging.warning("another word")
    assert [record.getMessage() for record in caplog.records] == ["another word"]
    exact, rounded = onnx_backend(graph)(crops), onnx_backend(out)(crops)
    assert 0 < np.abs(rounded - exact).max() < 0.02 * np.abs(exact).max()
