"""Tell AI-generated images from photographs with the Artifact Purification Network.

`load` opens the detector; `load_model` opens the network (needs the extra `torch`). Names are imported when first used,
so that `import apn` costs nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from apn.version import __version__

# Else ONNX Runtime (1.29 and later) sends its maker an identifier of this machine and what it runs. It looks at this
# when it is imported, and every import of it in this package comes after this one.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from apn.checkpoint import load_model as load_model
    from apn.detection import Delivery as Delivery
    from apn.detection import Detection as Detection
    from apn.detection import Tile as Tile
    from apn.detector import Detector as Detector
    from apn.detector import load as load
    from apn.explanations import Explanation as Explanation
    from apn.explanations import explain as explain
    from apn.image import ImageError as ImageError
    from apn.image import load_image as load_image

_HOMES = {
    "Delivery": "apn.detection",
    "Detection": "apn.detection",
    "Detector": "apn.detector",
    "Explanation": "apn.explanations",
    "ImageError": "apn.image",
    "Tile": "apn.detection",
    "explain": "apn.explanations",
    "load": "apn.detector",
    "load_image": "apn.image",
    "load_model": "apn.checkpoint",
}
_EXTRAS = {"Explanation": "explain", "explain": "explain", "load_model": "torch"}  # the rest needs none
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'apn' has no attribute {name!r}: expected one of {', '.join(__all__)}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "apn").startswith("apn") or name not in _EXTRAS:
            raise
        told = f'apn.{name} needs {error.name}: pip install "apn[{_EXTRAS[name]}]"'
        raise ModuleNotFoundError(told, name=error.name) from error


def __dir__() -> list[str]:
    return sorted(__all__)
