"""Export a checkpoint, of APN or a baseline, to ONNX or OpenVINO; always followed by a comparison with PyTorch.

The graph is what inference needs, of APN the artifact side: `image` float32 RGB (N, 3, S, S) in [0, 1] -> `logits`
(N, 2), N free. Fourier transforms become real matrix products, which every runtime computes alike. Dimensions: N
images, S side of the crop.
"""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from apn.backends import MADE_FROM, ONNX_FILE, import_openvino, onnx_batch_backend, to_input
from apn.checkpoint import TRAINING, WEIGHTS, load_model, read_checkpoint_config, read_training, sha256
from apn.crops import center_crop
from apn.image import find_images, load_image
from apn.metrics import probabilities
from apn.models.apn import APN
from apn.models.baselines import Baseline
from apn.models.build import Network
from apn.models.detect import DetectOnly
from apn.models.fourier import FFT, MatrixDFT

DEMO_IMAGES = Path(__file__).parent.parent / "demo" / "images"  # in a checkout
TOLERANCE = 1e-4
OPSET = 18
Format = Literal["onnx", "openvino"]


class Comparison(NamedTuple):
    """Largest difference between the export and PyTorch over `images` crops.

    logit: of a logit, divided by the largest absolute logit where that is above 1.
    """

    images: int
    probability: float
    logit: float


class ExportMismatchError(ValueError):
    """The exported graph does not compute what the checkpoint computes; the file was not kept."""


class InferenceGraph(nn.Module):
    """What is exported: image (N, 3, S, S) -> logits (N, 2), Fourier transforms as matrix products."""

    def __init__(self, model: Network) -> None:
        """Raises ValueError for a baseline that no graph can compute."""
        super().__init__()
        if isinstance(model, Baseline) and model.not_exported:
            raise ValueError(f"no graph of {type(model).__name__}: {model.not_exported}")
        self.model = DetectOnly(model, plain=True) if isinstance(model, APN) else model.eval()
        for name, part in list(self.model.named_modules()):
            if isinstance(part, FFT):
                self.model.set_submodule(name, MatrixDFT(part.height, part.width))

    def forward(self, image: Tensor) -> Tensor:
        if isinstance(self.model, DetectOnly):
            return self.model.together(image)
        return self.model(image, irrelevant=False).logits


def comparison_crops(checkpoint: Path, images: Sequence[Path] | None = None) -> np.ndarray:
    """Centre crops (N, S, S, 3) uint8 to compare on: of the images and folders given, else of the project's demo."""
    if not images and not DEMO_IMAGES.is_dir():
        raise ValueError("no images to compare numbers on: name some with --images FILE_OR_FOLDER")
    size = read_checkpoint_config(checkpoint).model.image_size
    paths = list(find_images(images or [DEMO_IMAGES]))
    if not paths:
        raise ValueError(f"no images in {images}: the comparison needs at least one")
    return np.stack([center_crop(load_image(path).pixels, size) for path in paths])


def export_graph(checkpoint: Path, out: Path, crops: np.ndarray, *, file_format: Format = "onnx") -> Comparison:
    """Writes the graph of a checkpoint folder to `out` (.onnx, or .xml with its .bin) once its numbers are right.

    crops: (N, S, S, 3) uint8 of real images to compare on. Raises ExportMismatchError where a probability or a logit
    differs from PyTorch's by more than 1e-4 (a logit: relative to the largest); then nothing is written.
    """
    require_name(out, file_format)
    made_from = exported_sha256(checkpoint)
    expected = _torch_logits(load_model(checkpoint), crops)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / ONNX_FILE
        write_onnx(InferenceGraph(load_model(checkpoint)), graph)
        record_weights(graph, made_from)
        run, files = onnx_batch_backend(graph), [(graph, out)]
        if file_format == "openvino":
            run, files = _convert_to_openvino(graph, out)
        comparison = compare(run, crops, expected)
        if not (comparison.probability <= TOLERANCE and comparison.logit <= TOLERANCE):  # nan differs too
            raise ExportMismatchError(
                f"the {file_format} graph of {checkpoint} differs from PyTorch by {comparison.probability:.2g} in "
                f"probability and {comparison.logit:.2g} in logit on {comparison.images} crops "
                f"(allowed {TOLERANCE:g}): nothing was written to {out}"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        for source, target in files:
            shutil.move(source, target)
    return comparison


def require_name(out: Path, file_format: Format = "onnx") -> None:
    """ValueError for another ending than the format's: a graph must not replace a checkpoint or a picture."""
    if file_format == "openvino" and out.suffix != ".xml":
        raise ValueError(f"expected an .xml file for OpenVINO (its weights go beside it as .bin), found {out}")
    if file_format == "onnx" and out.suffix != ".onnx":
        raise ValueError(f"expected an .onnx file, found {out}")


def exported_sha256(checkpoint: Path) -> str:
    """Of the weights of a checkpoint folder. Raises ValueError where the facts beside them, if any, are of others."""
    found = sha256(checkpoint / WEIGHTS)
    recorded = read_training(checkpoint)["sha256"] if (checkpoint / TRAINING).is_file() else found
    if found != recorded:
        raise ValueError(
            f"{checkpoint}: expected in {WEIGHTS} the weights that {TRAINING} is of (sha256 {recorded}), found others "
            f"({found}): copy the folder of a checkpoint as a whole"
        )
    return found


def record_weights(graph: Path, made_from: str) -> None:
    """Writes the SHA-256 of its weights into an ONNX file, so that the graph is not taken for that of others."""
    model = onnx.load(graph)
    onnx.helper.set_model_props(model, {MADE_FROM: made_from})
    onnx.save(model, graph)


def compare(run: Callable[[np.ndarray], np.ndarray], crops: np.ndarray, expected: np.ndarray) -> Comparison:
    """Runs the crops one by one and all together; expected: PyTorch's logits (N, 2)."""
    together, alone = run(crops), np.concatenate([run(crop[None]) for crop in crops])
    found = np.stack([together, alone])
    gap = np.abs(probabilities(found) - probabilities(expected)).max()
    return Comparison(len(crops), float(gap), float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1)))


def write_onnx(graph: InferenceGraph, path: Path) -> None:
    """One self-contained file, with a free batch size."""
    size = graph.model.config.image_size
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    free = {"image": {0: torch.export.Dim("batch", min=1, max=4096)}}
    write_module(graph, path, {"image": example}, "logits", dynamic_shapes=free)


def write_module(
    module: nn.Module,
    path: Path,
    examples: dict[str, Tensor],
    output: str,
    dynamic_shapes: dict[str, dict[int, torch.export.Dim]] | None = None,
) -> None:
    """One self-contained ONNX file. examples: one for each input, by the name of forward's argument.

    dynamic_shapes: the axes that are free, as torch.export takes them; all others have the examples' length.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
        torch.onnx.export(
            module.eval(),
            tuple(examples.values()),
            path,
            input_names=list(examples),
            output_names=[output],
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _strip_traces(path)


def _strip_traces(path: Path) -> None:
    """Takes out the exporter's stack traces: they name files of this machine and mean nothing."""
    graph = onnx.load(path)
    for part in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]
    onnx.save(graph, path)


def _convert_to_openvino(graph: Path, out: Path) -> tuple[Callable[[np.ndarray], np.ndarray], list[tuple[Path, Path]]]:
    openvino = import_openvino()
    model = openvino.Core().read_model(graph)  # convert_model does the same, and reports to its maker
    path = graph.with_suffix(".xml")
    openvino.save_model(model, path, compress_to_fp16=False)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # the comparison is of the graph, not of a processor's shortcuts
    compiled = openvino.compile_model(path, "CPU", exact)

    def run(crops: np.ndarray) -> np.ndarray:
        return compiled(to_input(crops))[0]

    return run, [(path, out), (path.with_suffix(".bin"), out.with_suffix(".bin"))]


@torch.inference_mode()
def _torch_logits(model: Network, crops: np.ndarray) -> np.ndarray:
    return model(torch.from_numpy(to_input(crops)), irrelevant=False).logits.numpy()
