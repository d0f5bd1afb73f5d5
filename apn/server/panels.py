"""An explanation as JSON values for a page: small pictures as data URIs, with their words and scales."""

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from apn.explain_figures import figure_pixels, spectrum_figure
from apn.explain_files import bands_json
from apn.explain_parts import OPACITY, Part, Scale, band_parts, heat_parts
from apn.explanations import Explanation

LONGEST_SIDE = 800  # pixels of a picture that is shown in a card
STOPS = 9  # colours of a scale
SPECTRUM_DPI = 150


def explanation_panels(explanation: Explanation) -> dict[str, Any]:
    """`target`, `panels`, and the bands as in the JSON of `apn explain`. Tile scores come with the detection."""
    spectrum = Part(
        "spectrum",
        "spectrum and bands",
        "Amplitude (log) of one tile, frequency 0 in the centre; at its sides the frequencies that each band selects, "
        "in brackets what the logit would lose without it. The table below says the same.",
        figure_pixels(spectrum_figure(explanation.bands), SPECTRUM_DPI),
    )
    parts = [*heat_parts(explanation), spectrum, *band_parts(explanation.bands)]
    return {"target": explanation.target, "panels": [_panel(part) for part in parts], **bands_json(explanation)}


def _panel(part: Part) -> dict[str, Any]:
    image = Image.fromarray(part.pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    photographic = part.scale is not None and part.scale.overlay  # a tenth of the bytes; bands keep every trace
    return {
        "name": part.name,
        "title": part.title,
        "meaning": part.meaning,
        "width": image.width,
        "height": image.height,
        "image": _data_uri(image, "jpeg" if photographic else "png"),
        "scale": None if part.scale is None else _scale(part.scale),
    }


def _data_uri(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, quality=88, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _scale(scale: Scale) -> dict[str, Any]:
    colours = mpl.colormaps[scale.colours](np.linspace(0, 1, STOPS))[:, :3]
    if scale.overlay:  # as over a picture of middle grey
        colours = OPACITY * colours + (1 - OPACITY) / 2
    low, high = scale.ends()
    return {
        "low": low,
        "high": high,
        "label": scale.label,
        "colours": [to_hex(colour) for colour in colours],
    }
