"""The rows of bench/inference.py: each opens a checkpoint its own way, and all answer crops with logits.

Dimensions: N images, S side of a crop, K bands. A runner maps crops (N, S, S, 3) uint8 to logits (N, 2) float32.
"""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apn.backends import import_openvino, onnx_backend, to_input

if TYPE_CHECKING:
    from torch import nn

    from apn.models.apn import APN

Runner = Callable[[np.ndarray], np.ndarray]
TRUNKS = ("band_trunk", "spatial_trunk")
PARTS = ("bands", "band_trunk", "spatial_trunk", "heads")  # of the OpenVINO rows, see bench/graphs.py


class Job(NamedTuple):
    """What a row opens: the checkpoint, the folder of graphs made of it, cores to use."""

    checkpoint: Path
    graphs: Path
    threads: int


class Row(NamedTuple):
    """imports: what the row needs at least, loaded before memory is counted. graph: file or folder of `Job.graphs`.

    exact: the logits should be the untouched network's within rounding.
    """

    open: Callable[[Job], Runner]
    imports: tuple[str, ...] = ("torch", "timm", "apn.models.apn", "apn.checkpoint")
    graph: str = ""
    exact: bool = True


# PyTorch -------------------------------------------------------------------------------------------------------------


def of_torch(network: "Callable[[Any], Any] | nn.Module") -> Runner:
    """A function of images (N, 3, S, S) that gives logits (N, 2)."""
    import torch

    @torch.no_grad()
    def run(crops: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(to_input(crops))).numpy()

    return run


def load(job: Job) -> "APN":
    import torch

    from apn.checkpoint import load_model
    from apn.models.apn import APN

    torch.set_num_threads(job.threads)
    model = load_model(job.checkpoint)
    assert isinstance(model, APN)
    return model


def open_baseline(job: Job) -> Runner:
    from restatement import Restatement

    return of_torch(Restatement(load(job)))


def open_eager(job: Job) -> Runner:
    model = load(job)
    return of_torch(lambda image: model(image, irrelevant=False).logits)


def open_detect_only(job: Job) -> Runner:
    return of_torch(load(job).detect_only())


def open_compiled(job: Job) -> Runner:
    from apn.models.detect import DetectOnly

    return of_torch(DetectOnly(load(job), plain=True).compile_trunks())


def open_bf16(job: Job) -> Runner:
    import torch

    return of_torch(load(job).detect_only(dtype=torch.bfloat16))


def open_compiled_bf16(job: Job) -> Runner:
    import torch

    from apn.models.detect import DetectOnly

    return of_torch(DetectOnly(load(job), dtype=torch.bfloat16, plain=True).compile_trunks())


# Graphs --------------------------------------------------------------------------------------------------------------


def open_onnx(job: Job) -> Runner:
    return onnx_backend(job.graphs / "model.onnx", threads=job.threads)


def open_onnx_int8(job: Job) -> Runner:
    return onnx_backend(job.graphs / "int8.onnx", threads=job.threads)


def open_openvino(job: Job, precision: str = "f32", int8: Collection[str] = (), in_turn: bool = False) -> Runner:
    """The four parts of a network, one image at a time; with more than one, as many images at once as there are cores.

    precision: of the trunks, of what is not int8 in them; the rest stays float32. int8: which trunks are. in_turn: all
    cores on one image after the other, in less memory.
    """
    openvino = import_openvino()
    core = openvino.Core()
    streams = {"NUM_STREAMS": job.threads, "INFERENCE_NUM_THREADS": job.threads}

    def compiled(part: str, alone: bool) -> Any:
        is_trunk = part.endswith("trunk")
        settings = {"INFERENCE_PRECISION_HINT": precision if is_trunk else "f32"}
        settings |= {"INFERENCE_NUM_THREADS": job.threads, "NUM_STREAMS": 1} if alone else streams
        return core.compile_model(
            job.graphs / "openvino" / f"{part}{'-int8' if part in int8 else ''}.xml", "CPU", settings
        )

    pipelines: dict[bool, list[Any]] = {}
    pool = ThreadPoolExecutor(job.threads)

    def requests(alone: bool) -> list[Any]:
        """One set of requests for each image at once."""
        if alone not in pipelines:
            models = [compiled(part, alone) for part in PARTS]
            count = 1 if alone else job.threads
            pipelines[alone] = [[model.create_infer_request() for model in models] for _ in range(count)]
        return pipelines[alone]

    def answer(request: list[Any], crops: np.ndarray) -> np.ndarray:
        bands, band_trunk, spatial_trunk, heads = request
        found = [np.empty((0, 2), np.float32)]
        for crop in crops:
            image = to_input(crop[None])
            purified = bands.infer([image], share_inputs=True, share_outputs=True)[0]
            features = band_trunk.infer([purified], share_inputs=True, share_outputs=True)[0]
            spatial = spatial_trunk.infer([image], share_inputs=True, share_outputs=True)[0]
            found.append(heads.infer([features, spatial])[0].copy())
        return np.concatenate(found)

    def run(crops: np.ndarray) -> np.ndarray:
        sets = requests(in_turn or len(crops) == 1)
        found = np.empty((len(crops), 2), np.float32)
        shares = [slice(first, None, len(sets)) for first in range(len(sets))]
        for share, logits in zip(shares, pool.map(answer, sets, (crops[share] for share in shares)), strict=True):
            found[share] = logits
        return found

    return run


GRAPH = ("onnxruntime", "apn.backends")
OPENVINO = ("openvino", "apn.backends")
ROWS: dict[str, Row] = {
    "baseline": Row(open_baseline),
    "eager": Row(open_eager),
    "detect_only": Row(open_detect_only),
    "compiled": Row(open_compiled),
    "bf16": Row(open_bf16, exact=False),
    "compiled-bf16": Row(open_compiled_bf16, exact=False),
    "onnx": Row(open_onnx, GRAPH, "model.onnx"),
    "onnx-int8": Row(open_onnx_int8, GRAPH, "int8.onnx", exact=False),
    "openvino": Row(open_openvino, OPENVINO, "openvino"),
    "openvino-bf16": Row(lambda job: open_openvino(job, "bf16"), OPENVINO, "openvino", exact=False),
    "openvino-int8-spatial": Row(
        lambda job: open_openvino(job, "bf16", TRUNKS[1:]), OPENVINO, "openvino-int8", exact=False
    ),
    "openvino-int8-spatial-in-turn": Row(
        lambda job: open_openvino(job, "bf16", TRUNKS[1:], in_turn=True), OPENVINO, "openvino-int8", exact=False
    ),
    "openvino-int8": Row(lambda job: open_openvino(job, "bf16", TRUNKS), OPENVINO, "openvino-int8", exact=False),
}
