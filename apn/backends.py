"""What turns crops into logits: ONNX Runtime (the light install) or PyTorch. Each is imported when it is asked for.

A backend maps crops (N, S, S, 3) uint8 RGB to logits (N, 2) float32.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Backend = Callable[[np.ndarray], np.ndarray]
BackendName = Literal["auto", "onnx", "torch"]
Device = Literal["cpu", "cuda", "mps"]
ONNX_FILE = "model.onnx"
REPORTER = "openvino_telemetry"  # a package
MADE_FROM = "weights_sha256"  # in a graph's metadata: of the safetensors that it was exported from
WEIGHTS_FOLDER = Path(__file__).parent / "weights"


class OpenBackend(NamedTuple):
    """A backend that is ready, or nearly so, and its name."""

    logits: Backend
    name: str


def find_weights(weights: str | os.PathLike[str]) -> Path:
    """The folder of shipped weights by name, or of any checkpoint by path."""
    for folder in (Path(weights), WEIGHTS_FOLDER / weights):
        if (folder / "config.json").is_file():
            return folder
    if there := [str(Path(weights, name)) for name in ("best", "last") if Path(weights, name, "config.json").is_file()]:
        raise ValueError(f"{weights} is a run: expected a checkpoint folder, such as {' or '.join(there)} in it")
    if Path(weights).is_file():
        raise ValueError(f"{weights} is a file: expected the checkpoint folder, with its config.json and {ONNX_FILE}")
    shipped = sorted(path.parent.name for path in WEIGHTS_FOLDER.glob("*/config.json"))
    raise ValueError(f"no weights {str(weights)!r}: expected a checkpoint folder or one of {', '.join(shipped)}")


def weights_sha256(folder: Path) -> str:
    """Of the safetensors, as recorded when they were saved; of the graph where only that is there."""
    return _recorded_sha256(folder) or hashlib.sha256((folder / ONNX_FILE).read_bytes()).hexdigest()


def _recorded_sha256(folder: Path) -> str | None:
    training = folder / "training.json"
    return json.loads(training.read_text(encoding="utf-8"))["sha256"] if training.is_file() else None


def open_backend(
    folder: Path, backend: BackendName = "auto", device: Device = "cpu", *, wait: bool = True
) -> OpenBackend:
    """The backend of a weights folder. `auto` takes ONNX Runtime where the folder has a graph, else PyTorch.

    wait: False returns while ONNX Runtime still opens the graph; an error in the graph then comes with the first call.
    Raises ValueError where the backend or device is not there, with what to install.
    """
    for word, found, known in (("backend", backend, BackendName), ("device", device, Device)):
        if found not in get_args(known):
            raise ValueError(f"expected {word} {', '.join(get_args(known))}, found {found!r}")
    if backend == "auto":
        backend = "onnx" if (folder / ONNX_FILE).is_file() else "torch"
    if backend == "onnx":
        return OpenBackend(onnx_backend(folder / ONNX_FILE, device, wait=wait), backend)
    return OpenBackend(torch_backend(folder, device), backend)


def to_input(crops: np.ndarray) -> np.ndarray:
    """Crops (N, S, S, 3) uint8 -> (N, 3, S, S) float32 in [0, 1]."""
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def onnx_backend(graph: Path, device: Device = "cpu", *, threads: int | None = None, wait: bool = True) -> Backend:
    """Logits from an ONNX graph with input `image` (N, 3, S, S) and output `logits` (N, 2).

    On a processor every crop goes through the graph by itself, `threads` of them at a time (default: one for each core
    that this process may use). That is faster than a batch, whose feature maps leave the cache; it needs a fraction of
    the memory; and what a crop gets does not depend on its company. Another device gets the batch as it is.
    wait: as in `open_backend`. Raises ValueError where the graph or the device is not there, or the graph is damaged or
    names other weights than those beside it.
    """
    provider = _provider(graph, device)
    threads = threads or usable_cores()
    if device != "cpu":
        session = _open_session(graph, provider, threads)
        return lambda crops: _run(session, crops)
    pools: dict[int, ThreadPoolExecutor] = {}  # by process: one that is forked has this pool, but none of its threads

    def pool() -> ThreadPoolExecutor:
        process = os.getpid()
        return pools.get(process) or pools.setdefault(process, ThreadPoolExecutor(threads, "apn-onnx"))

    opening = pool().submit(_open_session, graph, provider, 1)
    if wait:
        opening.result()

    def logits(crops: np.ndarray) -> np.ndarray:
        session = opening.result()
        rows = pool().map(lambda crop: _run(session, crop[None]), crops)
        return np.concatenate([np.empty((0, 2), np.float32), *rows])

    return logits


def onnx_batch_backend(graph: Path, *, threads: int | None = None) -> Backend:
    """As `onnx_backend` on a processor, but the crops go through the graph together, as other programs may do it."""
    session = _open_session(graph, _provider(graph, "cpu"), threads or usable_cores())
    return lambda crops: _run(session, crops)


def _provider(graph: Path, device: Device) -> str:
    import onnxruntime

    if not graph.is_file():
        raise ValueError(f"no ONNX graph {graph}: make it with `apn export {graph.parent} --out {graph}`")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}[
        device
    ]
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"this onnxruntime has no {provider} for device {device!r}: install the build that has it")
    return provider


def _open_session(graph: Path, provider: str, threads: int) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=[provider])
    except Exception as error:  # its errors have no class in common
        raise ValueError(f"{graph} cannot be opened, make it again with `apn export`: {error}") from error
    made_from, beside = session.get_modelmeta().custom_metadata_map.get(MADE_FROM), _recorded_sha256(graph.parent)
    if made_from and beside and made_from != beside:  # graphs of older exports do not say
        raise ValueError(
            f"{graph}: expected a graph of the weights beside it (sha256 {beside}), found one of others ({made_from}): "
            f"make it again with `apn export {graph.parent} --out {graph}`"
        )
    return session


def _run(session: "InferenceSession", crops: np.ndarray) -> np.ndarray:
    side, found = session.get_inputs()[0].shape[-1], crops.shape[1]
    if isinstance(side, int) and side != found:  # else a name: any size
        raise ValueError(
            f"the ONNX graph takes crops of {side} pixels, config.json beside it says {found}: the two are of "
            "different networks, make the graph again with `apn export`"
        )
    return session.run(["logits"], {"image": to_input(crops)})[0]


def usable_cores() -> int:
    """Not os.cpu_count(), which counts cores that a container may not use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_backend(folder: Path, device: Device = "cpu") -> Backend:
    """Logits from the checkpoint itself."""
    try:
        import torch

        from apn.checkpoint import load_model
        from apn.models.apn import APN
    except ImportError as error:
        raise ValueError(
            f'the torch backend needs PyTorch ({error.name} is missing): pip install "apn[torch]"'
        ) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        raise ValueError(
            f"PyTorch has no device {device!r} here: expected one of {[d for d, has in available.items() if has]}"
        )
    model = load_model(folder, device=device)
    network = model.detect_only() if isinstance(model, APN) else lambda image: model(image, irrelevant=False).logits

    @torch.inference_mode()
    def logits(crops: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(to_input(crops)).to(device)
        return network(image).float().cpu().numpy()

    return logits


def import_openvino() -> ModuleType:
    """OpenVINO, without the package by which it tells its maker that it was imported. ValueError without OpenVINO."""
    modules = cast(dict[str, ModuleType | None], sys.modules)
    kept = modules.get(REPORTER)
    modules[REPORTER] = None  # cannot be imported meanwhile
    try:
        import openvino
    except ImportError as error:
        raise ValueError('the OpenVINO format needs its package: pip install "apn[openvino]"') from error
    finally:
        if kept is None:
            del modules[REPORTER]
        else:
            modules[REPORTER] = kept
    return openvino
