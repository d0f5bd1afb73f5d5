"""The gallery of docs/explanations.md: ten images of our own making or of clear licence on one sheet.

    python bench/gallery.py [--weights apn-mini] [--out docs/images-of-explanations/gallery.jpg]

Five photographs and five pictures that no camera took: the eight images of demo/ (demo/README.md has their licences),
scikit-learn's sample photograph china.jpg ("Some rights reserved by danielbuechele", CC BY 2.0, cut), and its
reconstruction by a small autoencoder that is trained here for about a minute on the photographs of demo/.
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image

import apn
from apn.backends import to_input
from apn.checkpoint import load_model
from apn.data.samples import REAL, Sample
from apn.explain_figures import figure_pixels
from apn.explain_parts import all_parts
from apn.explanations import Explanation, explain
from apn.models.autoencoders import reconstruct
from apn.report.canvas import INK, QUIET, styled
from apn.synthesize import prepare
from apn.words import verdict_line

DEMO = Path(__file__).parents[1] / "demo" / "images"
CHINA = (160, 100, 416, 484)  # left, top, right, bottom of the cut, pixels
QUALITY = 90
WIDTH, HEADER, CELL, GAP, MARGIN = 9.6, 0.32, 0.89, 0.05, 0.06  # inches
PITCH, DPI = CELL + 0.26, 130
SHOWN = {"picture": "image", "evidence-map": "evidence", "heat-map": "spatial branch",
         "frequency-heat-map": "frequency branch", "purified-1": "strongest band"}  # fmt: skip


class Row(NamedTuple):
    title: str
    path: Path


def rows(folder: Path, steps: int) -> tuple[list[Row], list[Row]]:
    """(photographs, others); those that are not in demo/ are written to `folder`."""
    china = Image.fromarray(load_sample_image("china.jpg")).crop(CHINA)
    china.save(folder / "photo-china.jpg", quality=QUALITY)
    photos = [Sample(path, REAL, "", "", "", path.name) for path in sorted(DEMO.glob("photo-*"))]
    autoencoder, line = prepare("own:nearest", photos, steps=steps)
    print(line)
    fake = reconstruct(autoencoder, torch.from_numpy(to_input(np.asarray(china)[None])))[0]
    Image.fromarray((fake.permute(1, 2, 0) * 255).round().byte().numpy()).save(
        folder / "reconstructed-china.jpg", quality=QUALITY
    )
    shown = [photo.path for photo in photos] + [folder / "photo-china.jpg"]
    others = [DEMO / f"reconstructed-{name}" for name in ("cat.jpg", "coffee.webp", "rocket.png")]
    others = [DEMO / "synthesised-stars.jpg", *others, folder / "reconstructed-china.jpg"]
    return [Row("photograph", path) for path in shown], [Row(path.stem.split("-")[0], path) for path in others]


def sheet(explained: list[list[tuple[Row, Explanation]]]) -> Figure:
    """Photographs at the left, the others at the right; a row a picture, a column a part."""
    with styled():
        figure = Figure(figsize=(WIDTH, HEADER + PITCH * len(explained[0])))
        for side, column in enumerate(explained):
            for line, (row, explanation) in enumerate(column):
                left, top = MARGIN + side * (WIDTH / 2), HEADER + line * PITCH
                words = f"{row.title} {row.path.stem.split('-')[1]}: {verdict_line(explanation.detection)}"
                place(figure, left, top - 0.02, words.replace(" of being AI-generated", ""))
                parts = {part.name: part.pixels for part in all_parts(explanation)}
                for number, name in enumerate(SHOWN):
                    axes = box(figure, left + number * (CELL + GAP), top + 0.17)
                    axes.imshow(square(parts[name]), interpolation="antialiased")
                    if line == 0:
                        place(figure, left + number * (CELL + GAP), 0.08, SHOWN[name], colour=QUIET)
    return figure


def place(figure: Figure, left: float, top: float, text: str, colour: str = INK) -> None:
    height = figure.get_figheight()
    figure.text(left / WIDTH, 1 - top / height, text, va="top", fontsize=7, color=colour)


def box(figure: Figure, left: float, top: float) -> Axes:
    height = figure.get_figheight()
    axes = figure.add_axes((left / WIDTH, 1 - (top + CELL) / height, CELL / WIDTH, CELL / height))
    axes.set_axis_off()
    return axes


def square(pixels: np.ndarray) -> np.ndarray:
    """The picture's centre, so that all cells are alike."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="apn-mini")
    parser.add_argument("--out", type=Path, default=Path("docs/images-of-explanations/gallery.jpg"))
    parser.add_argument("--fit-steps", type=int, default=1000)
    options = parser.parse_args()
    model, detector = load_model(options.weights), apn.load(options.weights)
    with tempfile.TemporaryDirectory() as folder:
        explained = [
            [(row, explain(model, row.path, detector=detector)) for row in column]
            for column in rows(Path(folder), options.fit_steps)
        ]
    options.out.parent.mkdir(exist_ok=True)
    Image.fromarray(figure_pixels(sheet(explained), DPI)).save(
        options.out, quality=QUALITY, subsampling=0, optimize=True
    )
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
