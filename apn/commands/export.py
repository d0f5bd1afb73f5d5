"""`apn export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from apn.commands.options import say


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .xml for OpenVINO.")],
    file_format: Annotated[Literal["onnx", "openvino"], typer.Option("--format")] = "onnx",
    images: Annotated[list[Path] | None, typer.Option(help="Images to compare numbers on; repeatable.")] = None,
    int8: Annotated[
        str | None, typer.Option(help="Labelled data (as for `data.train`): quantise to int8 and measure the loss.")
    ] = None,
) -> None:
    """Export a checkpoint for another runtime.

    Fails unless its probabilities equal PyTorch's within 1e-4 on real images.
    """
    from apn.export import comparison_crops, export_graph

    if int8 is not None:
        if file_format != "onnx":
            raise ValueError("--int8 makes an ONNX graph: leave out --format openvino")
        from apn.quantize import quantize

        say(quantize(checkpoint, out, int8).summary())
        return
    comparison = export_graph(checkpoint, out, comparison_crops(checkpoint, images), file_format=file_format)
    say(
        f"{out}: largest difference from PyTorch on {comparison.images} crops, one by one and together: "
        f"probability {comparison.probability:.1e}, logit {comparison.logit:.1e}"
    )
