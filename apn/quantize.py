"""int8 graphs for ONNX Runtime, with what they lose measured.

Dimensions: N images, S side of the crop.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apn.backends import ONNX_FILE, onnx_backend, to_input
from apn.checkpoint import load_model, read_checkpoint_config
from apn.crops import center_crop
from apn.data.layouts import read_data
from apn.data.samples import require_both_classes
from apn.export import InferenceGraph, exported_sha256, record_weights, require_name, write_onnx
from apn.image import load_image
from apn.metrics import auc, probabilities


class Quantization(NamedTuple):
    """What int8 costs, measured on images that were not used to choose its ranges."""

    images: int
    auc: float
    auc_int8: float
    agreement: float
    bytes: int
    bytes_int8: int

    def summary(self) -> str:
        """One line for people."""
        return (
            f"int8: AUC {self.auc_int8:.4f} against {self.auc:.4f} in fp32, same side of 0.5 on {self.agreement:.1%} "
            f"of {self.images} images, {self.bytes_int8 / 1e6:.1f} MB against {self.bytes / 1e6:.1f} MB"
        )


def quantize(checkpoint: Path, out: Path, data: str, *, range_images: int = 100, seed: int = 0) -> Quantization:
    """Writes an int8 graph (weights per channel, activations per tensor) and measures what it loses.

    data: labelled images as `read_data` takes them; `range_images` of them set the activation ranges, the rest
    measure. The Fourier matrices and the band proposers stay in float32, where rounding would move whole bands, and
    what reads less than one grey value. Raises ValueError for too few images, or a file that is not named .onnx.
    """
    require_name(out)
    made_from = exported_sha256(checkpoint)
    samples = read_data(data)
    require_both_classes(samples, data)
    order = np.random.default_rng(seed).permutation(len(samples))
    if len(samples) < 2 * range_images:
        raise ValueError(f"expected at least {2 * range_images} labelled images in {data}, found {len(samples)}")
    size = read_checkpoint_config(checkpoint).model.image_size
    crops = np.stack([center_crop(load_image(samples[i].path).pixels, size) for i in order])
    labels = np.array([samples[i].label for i in order[range_images:]])

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / ONNX_FILE
        write_onnx(InferenceGraph(load_model(checkpoint)), graph)
        write_int8(graph, out, crops[:range_images])
        record_weights(out, made_from)
        scores, scores_int8 = (_in_batches(onnx_backend(path), crops[range_images:]) for path in (graph, out))
        sizes = graph.stat().st_size, out.stat().st_size
    agreement = float(((scores >= 0.5) == (scores_int8 >= 0.5)).mean())
    return Quantization(len(labels), auc(labels, scores), auc(labels, scores_int8), agreement, *sizes)


def write_int8(graph: Path, out: Path, crops: np.ndarray) -> None:
    """An int8 graph of an exported one. crops: (N, S, S, 3) uint8, which set the ranges of the activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._crops = iter(crops)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self._crops, None)
            return None if crop is None else {"image": to_input(crop[None])}

    with _without_advice():
        quantize_static(
            graph,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_float_nodes(graph),
        )


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without ONNX Runtime's advice to pre-process the graph, which the exporter has folded already: in apn-mini's it
    changes next to nothing, and no logit."""

    def other(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)


def _float_nodes(graph: Path) -> list[str]:
    """Everything but convolutions and linear layers; all of the band proposers, the views and the block cosines."""
    import onnx

    heavy = {"Conv", "Gemm"}  # the Fourier transforms are MatMul
    exact = ("proposer", ".views.", ".cosines.")
    return [
        node.name
        for node in onnx.load(graph, load_external_data=False).graph.node
        if node.op_type not in heavy or any(part in name for part in exact for name in node.input)
    ]


def _in_batches(run: Callable[[np.ndarray], np.ndarray], crops: np.ndarray, size: int = 16) -> np.ndarray:
    return probabilities(np.concatenate([run(crops[i : i + size]) for i in range(0, len(crops), size)]))
