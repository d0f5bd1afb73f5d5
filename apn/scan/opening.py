"""How a worker gets its detector, as plain data that can be sent to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from apn.backends import ONNX_FILE, BackendName, Device, OpenBackend, find_weights, onnx_backend, torch_backend
from apn.detector import load

if TYPE_CHECKING:
    import numpy as np

    from apn.detector import Detector


@dataclass(frozen=True)
class OpenDetector:
    """Opens the detector of these weights on `threads` cores. Paths must be there on every machine with a worker."""

    weights: str
    backend: BackendName = "auto"
    device: Device = "cpu"
    calibration: str | None = None
    threads: int = 1

    def __call__(self) -> "Detector":
        folder = find_weights(self.weights)
        if self.chosen_backend() == "onnx":
            opened = OpenBackend(onnx_backend(folder / ONNX_FILE, self.device, threads=self.threads), "onnx")
        else:
            opened = OpenBackend(torch_backend(folder, self.device), "torch")
            import torch

            torch.set_num_threads(self.threads)
        return load(self.weights, backend=opened, calibration=self.calibration)

    def chosen_backend(self) -> str:
        """What `auto` means for these weights."""
        if self.backend != "auto":
            return self.backend
        return "onnx" if (find_weights(self.weights) / ONNX_FILE).is_file() else "torch"

    def describe(self) -> dict[str, Any]:
        """`Detector.describe`, without opening the graph: the driver may have no such device."""
        unopened = OpenBackend(_unopened, self.chosen_backend())
        return load(self.weights, backend=unopened, calibration=self.calibration).describe()


def _unopened(crops: "np.ndarray") -> NoReturn:
    raise AssertionError(f"a detector that was made to be described was asked for logits of {len(crops)} crops")
