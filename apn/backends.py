"""What turns crops into logits: ONNX Runtime (the light install) or PyTorch. Each is imported when it is asked for.

A backend maps crops (N, S, S, 3) uint8 RGB to logits (N, 2) float32.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

Backend = Callable[[np.ndarray], np.ndarray]
BackendName = Literal["auto", "onnx", "torch"]
Device = Literal["cpu", "cuda", "mps"]
ONNX_FILE = "model.onnx"


def open_backend(folder: Path, backend: BackendName = "auto", device: Device = "cpu") -> tuple[Backend, str]:
    """The backend and its name. `auto` takes ONNX Runtime where the folder has a graph, else PyTorch.

    Raises ValueError where the backend or device is not there, with what to install.
    """
    if backend == "auto":
        backend = "onnx" if (folder / ONNX_FILE).is_file() else "torch"
    return (onnx_backend(folder / ONNX_FILE, device) if backend == "onnx" else torch_backend(folder, device)), backend


def to_input(crops: np.ndarray) -> np.ndarray:
    """Crops (N, S, S, 3) uint8 -> (N, 3, S, S) float32 in [0, 1]."""
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def onnx_backend(graph: Path, device: Device = "cpu", *, threads: int | None = None) -> Backend:
    """Logits from an ONNX graph with input `image` (N, 3, S, S) and output `logits` (N, 2).

    threads: processor cores to use, all that this process may use by default.
    """
    import onnxruntime

    if not graph.is_file():
        raise ValueError(f"no ONNX graph {graph}: make it with `apn export {graph.parent} --out {graph}`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = 3
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}[
        device
    ]
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"this onnxruntime has no {provider} for device {device!r}: install the build that has it")
    session = onnxruntime.InferenceSession(str(graph), options, providers=[provider])

    def logits(crops: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"image": to_input(crops)})[0]

    return logits


def usable_cores() -> int:
    """Not os.cpu_count(), which counts cores that a container may not use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_backend(folder: Path, device: Device = "cpu") -> Backend:
    """Logits from the checkpoint itself."""
    try:
        import torch

        from apn.checkpoint import load_model
    except ImportError as error:
        raise ValueError(
            f"the torch backend needs PyTorch ({error.name} is missing): pip install 'apn[torch]'"
        ) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        raise ValueError(
            f"PyTorch has no device {device!r} here: expected one of {[d for d, has in available.items() if has]}"
        )
    model = load_model(folder, device=device)

    @torch.inference_mode()
    def logits(crops: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(to_input(crops)).to(device)
        return model(image, irrelevant=False).logits.float().cpu().numpy()

    return logits
