"""Numbers of 16 bits in training: where they pay, and what is not rounded to them: the picture."""

from typing import Any

import torch
from lightning_fabric.plugins.precision import MixedPrecision


def resolve_precision(precision: str, accelerator: str = "cpu") -> str:
    """`auto` becomes bf16-mixed where the hardware multiplies bfloat16 natively, else 32-true."""
    if precision != "auto":
        return precision
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    native = (
        accelerator == "cpu" and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return "bf16-mixed" if native else "32-true"


class WholePictures(MixedPrecision):
    """Autocast as Fabric's, but the network is given its input as it is.

    Fabric rounds inputs to bfloat16, whose step near 1 is a whole grey level: the traces that are looked for are
    smaller. What may be rounded, autocast rounds; the spectrum and the residual are float32 (METHOD, section 6).
    """

    def convert_input(self, data: Any) -> Any:
        return data


def precision_options(precision: str, device_type: str) -> dict[str, Any]:
    """Fabric's options for a precision of `TrainConfig`, "auto" resolved."""
    if precision == "32-true":
        return {"precision": precision}
    if precision != "bf16-mixed":
        raise ValueError(f"no precision {precision!r}: expected 32-true or bf16-mixed")
    return {"plugins": [WholePictures("bf16-mixed", device_type)]}
