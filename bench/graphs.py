"""Graphs for bench/inference.py, which starts this file for each of them.

model.onnx, int8.onnx, openvino (four parts in a folder), openvino-int8 (the two trunks in int8, after `openvino`).
In parts the trunks may be rounded while spectrum, bands and heads stay float32. A part takes one image.
Dimensions: N images, K bands, C = 3 colours, S side, F and E features of the trunks.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from inference_rows import PARTS
from made_images import RANGES, crops_for, made_crops
from torch import Tensor, nn

from apn.backends import import_openvino, to_input
from apn.checkpoint import load_model, read_checkpoint_config
from apn.export import InferenceGraph, write_module, write_onnx
from apn.models.detect import DetectOnly
from apn.quantize import write_int8

GRAPHS = ("model.onnx", "int8.onnx", "openvino", "openvino-int8")


class Bands(nn.Module):
    """image (1, C, S, S) -> purified images (K, C, S, S), as the band trunk takes them."""

    def __init__(self, network: DetectOnly) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        purified = self.network.purified(self.network.views(image).frequency)
        return self.network.band_normalize(purified.flatten(0, 1))


class SpatialTrunk(nn.Module):
    """image (1, C, S, S) -> features of all looks, of their references too, in one row (1, E)."""

    def __init__(self, network: DetectOnly) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        features = self.network.spatial_features(self.network.views(image).spatial)
        return torch.cat([one.reshape(1, -1) for one in features], dim=1)


class Heads(nn.Module):
    """Features of the purified images (K, F) and of all looks (1, E) -> logits (1, 2)."""

    def __init__(self, network: DetectOnly, shapes: Sequence[torch.Size]) -> None:
        """shapes: of each look's features, (1 or 2, N)."""
        super().__init__()
        self.network = network
        self.shapes = shapes

    def forward(self, bands: Tensor, features: Tensor) -> Tensor:
        looks = features.split([shape.numel() for shape in self.shapes], dim=1)
        return self.network.judge(bands[None], [one.reshape(*s) for one, s in zip(looks, self.shapes, strict=True)])


def inference_graph(checkpoint: Path) -> InferenceGraph:
    return InferenceGraph(load_model(checkpoint))


@torch.no_grad()
def write_parts(checkpoint: Path, folder: Path) -> None:
    """The four parts as OpenVINO files."""
    openvino = import_openvino()
    network = inference_graph(checkpoint).model
    assert isinstance(network, DetectOnly)
    image = torch.from_numpy(to_input(made_crops(1, size=network.config.image_size)[0]))
    bands, spatial = Bands(network), SpatialTrunk(network)
    purified, looks = bands(image), network.spatial_features(network.views(image).spatial)
    heads = Heads(network, [one.shape for one in looks])
    modules = {
        "bands": (bands, {"image": image}),
        "band_trunk": (network.band_trunk, {"pixels": purified}),
        "spatial_trunk": (spatial, {"image": image}),
        "heads": (heads, {"bands": network.band_trunk(purified), "features": spatial(image)}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    core = openvino.Core()
    for part in PARTS:
        module, examples = modules[part]
        write_module(module, folder / f"{part}.onnx", examples, "out")
        model = core.read_model(folder / f"{part}.onnx")  # convert_model does the same, and reports to its maker
        openvino.save_model(model, folder / f"{part}.xml", compress_to_fp16=False)
        (folder / f"{part}.onnx").unlink()


def write_int8_trunks(folder: Path, images: np.ndarray) -> None:
    """Both trunks in int8 beside the float32 ones. images: (N, C, S, S) float32, which set the ranges."""
    openvino = import_openvino()
    import nncf

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    bands = core.compile_model(folder / "bands.xml", "CPU", exact)
    inputs = {"band_trunk": lambda image: bands(image[None])[0].copy(), "spatial_trunk": lambda image: image[None]}
    for part, make in inputs.items():
        data = nncf.Dataset(images, make)
        # As a transformer's: large activations are evened out before they are rounded (SmoothQuant, Xiao et al. 2023),
        # without which ConvNeXt's linear layers and ResNet-18's convolutions lose verdicts (docs/performance.md).
        quantized = nncf.quantize(
            core.read_model(folder / f"{part}.xml"),
            data,
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER,
        )
        openvino.save_model(quantized, folder / f"{part}-int8.xml", compress_to_fp16=False)


def write(checkpoint: Path, out: Path, graph: str, range_images: int, images: str | None = None) -> None:
    """range_images: how many set the ranges of int8, others than are measured. images: of this data set, or made."""
    out.mkdir(parents=True, exist_ok=True)
    size = read_checkpoint_config(checkpoint).model.image_size
    if graph == "model.onnx":
        write_onnx(inference_graph(checkpoint), out / graph)
    elif graph == "int8.onnx":
        write_int8(out / "model.onnx", out / graph, crops_for(RANGES, range_images, size, images))
    elif graph == "openvino":
        write_parts(checkpoint, out / graph)
    else:
        write_int8_trunks(out / "openvino", to_input(crops_for(RANGES, range_images, size, images)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("graph", choices=GRAPHS)
    parser.add_argument("range_images", type=int, help="images that set the ranges of int8")
    parser.add_argument("images", nargs="?", help="data set that they are of; default: made ones")
    write(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
