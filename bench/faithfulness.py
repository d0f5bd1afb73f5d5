"""Are the heat maps and the bands of a checkpoint true? One table, Markdown, and a figure of the curves.

    python bench/faithfulness.py [--weights apn-mini] [--data apn/weights/apn-mini/validation.jsonl] --out DIR

1. Insertion and deletion on held-out generated images, against the same map mirrored and upside down, which is as
   smooth as it was, and against its cells shuffled, which are not.
2. Planted evidence: half of each held-out photograph is replaced by its reconstruction by a small autoencoder that is
   trained here on other photographs; both halves are then saved alike, JPEG quality 96. The heat must lie on that half.
   The same with half of a held-out generated image, which the network was trained to tell, if of another scene.
3. Weights drawn anew: heat maps must change.
4. A wave of known frequency, and a small network trained to see it: the band without which its logit loses most must
   select that frequency.

Intervals are 95 % bootstrap intervals over split groups of mean values.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from apn.backends import to_input
from apn.checkpoint import load_model
from apn.crops import center_crop, crops_at, tile_corners
from apn.data.layouts import read_data
from apn.data.samples import GENERATED, Sample
from apn.data.select import draw
from apn.data.transforms import align, jpeg
from apn.faithfulness import (
    RANDOMIZED,
    SIDES,
    Curves,
    blurred,
    insertion_deletion,
    localisation_auc,
    plant,
    randomized,
    rank_correlation,
    shuffled_cells,
    turned,
)
from apn.heatmaps import TileMaps, enlarge, stitch, tile_maps
from apn.image import load_image
from apn.metrics import auc
from apn.models.apn import APN
from apn.models.autoencoders import Autoencoder, reconstruct
from apn.planted_patterns import pattern_test
from apn.plots.averages import mean_interval
from apn.report.canvas import new_figure, save_figure, series_style, styled
from apn.synthesize import photographs, prepare

MAPS = ("evidence", "spatial", "frequency")
OWN, TURNED, SHUFFLED = "as it is", "turned round", "cells shuffled"
PERIODS = (4, 8, 10, 12, 14)  # across and down 32 pixels
QUALITY = 96


class Mean(NamedTuple):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean(values: Sequence[float], groups: Sequence[str]) -> Mean:
    """Of the values that are numbers."""
    array, kept = np.asarray(values, float), np.isfinite(values)
    if not kept.any():
        return Mean(*[float("nan")] * 3)
    low, high = mean_interval(array[kept, None], np.asarray(groups)[kept])
    return Mean(float(array[kept].mean()), float(low[0]), float(high[0]))


class Measured:
    """The network, and what it says of tiles (N, S, S, 3) uint8."""

    def __init__(self, model: APN) -> None:
        self.model, self.size = model, model.config.image_size

    @torch.inference_mode()
    def probability(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images, irrelevant=False).logits.softmax(dim=1)[:, 1]

    def maps(self, tiles: Sequence[np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Maps (N, h, w) by name, and logits (N,)."""
        found: TileMaps = tile_maps(self.model, torch.from_numpy(to_input(np.stack(tiles))))
        maps = {name: getattr(found, name) for name in MAPS}
        return maps, found.logits

    def picture_maps(self, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """Maps (H, W) by name of a picture (H, W, 3), laid on it tile by tile as `apn explain` does, and its logit."""
        height, width = pixels.shape[:2]
        corners = tile_corners(height, width, self.size)
        maps, logits = self.maps(list(crops_at(pixels, corners, self.size)))
        laid = {name: stitch(enlarge(heat, self.size), corners, height, width)[0] for name, heat in maps.items()}
        return laid, float(logits.mean())


def curves(measured: Measured, samples: Sequence[Sample]) -> tuple[list[str], dict[tuple[str, str], list[Curves]]]:
    """Rows of the table, and the curves by map and by what was done to it."""
    tiles = [align(load_image(sample.path).pixels, measured.size, "jpeg", QUALITY) for sample in samples]
    groups = [sample.split_group for sample in samples]
    found: dict[tuple[str, str], list[Curves]] = {}
    for number, tile in enumerate(tiles):
        image = torch.from_numpy(to_input(tile[None]))[0]
        base, (maps, _) = blurred(image), measured.maps([tile])
        for name in MAPS:
            cells = maps[name][0]
            for kind, others in ((OWN, [cells]), (TURNED, turned(cells)), (SHUFFLED, [shuffled_cells(cells, number)])):
                each = [
                    insertion_deletion(measured.probability, image, enlarge(one[None], measured.size)[0], base)
                    for one in others
                ]
                found.setdefault((name, kind), []).append(mean_curves(each))
    rows = []
    for name, area, kind in product(MAPS, ("insertion_area", "deletion_area"), (TURNED, SHUFFLED)):
        first, second = ([getattr(one, area) for one in found[name, which]] for which in (OWN, kind))
        gain = mean([a - b for a, b in zip(first, second, strict=True)], groups)
        what = f"{area.split('_')[0]} area, {name} map; {kind}; difference"
        rows.append(f"| {what} | {mean(first, groups)} | {mean(second, groups)} | {gain} |")
    return rows, found


def mean_curves(each: Sequence[Curves]) -> Curves:
    """Of the same picture."""
    heights = ([getattr(one, kind) for one in each] for kind in ("insertion", "deletion"))
    return Curves(each[0].fractions, *(np.mean(one, axis=0) for one in heights))


def reconstructed(autoencoder: Autoencoder, pixels: np.ndarray) -> np.ndarray:
    fake = reconstruct(autoencoder, torch.from_numpy(to_input(pixels[None])))[0]
    return (fake.permute(1, 2, 0) * 255).round().byte().numpy()


def centres(samples: Sequence[Sample], side: int) -> list[tuple[Sample, np.ndarray]]:
    """Centres of `side` pixels, of the pictures that are as large."""
    loaded = ((sample, load_image(sample.path).pixels) for sample in samples)
    return [(sample, center_crop(pixels, side)) for sample, pixels in loaded if min(pixels.shape[:2]) >= side]


def planted(measured: Measured, name: str, photos: Sequence[np.ndarray], fakes: Sequence[np.ndarray],
            groups: Sequence[str]) -> list[str]:  # fmt: skip
    """Rows: the AUC of heat against the half of a photograph where a fake was planted, of the untouched photograph
    against that half, and whether the network tells photographs from whole fakes at all. Then that of evidence for the
    side to which planting moved the logit: where a network takes fakes for more real, a true map has its evidence for
    real there."""
    aucs: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in MAPS}
    towards: tuple[list[float], list[float]] = ([], [])
    logits: tuple[list[float], list[float]] = ([], [])
    for number, (pixels, fake) in enumerate(zip(photos, fakes, strict=True)):
        mixed, mask = plant(pixels, fake, SIDES[number % len(SIDES)])
        maps, told = zip(*(measured.picture_maps(jpeg(one, QUALITY)) for one in (mixed, pixels, fake)), strict=True)
        for kind in MAPS:
            for place in (0, 1):
                aucs[kind][place].append(localisation_auc(maps[place][kind], mask))
        for place in (0, 1):
            auc_here = aucs["evidence"][place][-1]
            towards[place].append(auc_here if told[0] > told[1] else 1 - auc_here)
        logits[0].append(float(told[1]))
        logits[1].append(float(told[2]))
    rows = []
    for kind in MAPS:
        own, untouched = (mean(values, groups) for values in aucs[kind])
        rows.append(
            f"| planted half, {name}, {kind} map: AUC; untouched photograph; goal | {own} | {untouched} | 0.8 |"
        )
    own, untouched = (mean(values, groups) for values in towards)
    what = f"planted half, {name}, evidence for the side that it moved the logit to: AUC; untouched photograph"
    rows.append(f"| {what} | {own} | {untouched} | |")
    known = auc([0] * len(photos) + [1] * len(photos), logits[0] + logits[1])
    rows.append(f"| whole fakes told from photographs, {name}: AUC | {known:.3f} | | |")
    return rows


def sanity(measured: Measured, samples: Sequence[Sample]) -> list[str]:
    """Rows: rank correlation of maps before and after weights are drawn anew, from the decision down."""
    tiles = [align(load_image(sample.path).pixels, measured.size, "jpeg", QUALITY) for sample in samples]
    before = measured.maps(tiles)[0]
    rows = []
    for what in RANDOMIZED:
        after = Measured(randomized(measured.model, what)).maps(tiles)[0]
        cells = [
            mean([rank_correlation(*pair) for pair in zip(before[kind], after[kind], strict=True)],
                 [sample.split_group for sample in samples])
            for kind in MAPS
        ]  # fmt: skip
        title = f"rank correlation with {what} drawn anew: evidence; spatial map; frequency map"
        rows.append(f"| {title} | {cells[0]} | {cells[1]} | {cells[2]} |")
    return rows


def patterns(seeds: int) -> list[str]:
    rows = []
    for start, periods in product(("narrow", "wide"), PERIODS):
        found = [pattern_test(periods, start=start, seed=seed) for seed in range(seeds)]
        means = [np.mean([getattr(one, name) for one in found]) for name in ("strongest", "elsewhere", "some", "auc")]
        here, elsewhere, some, told = (f"{value:.3f}" for value in means)
        what = (
            f"wave of {found[0].frequency:.3f} cycles per pixel, bands start {start}: strongest band there; elsewhere"
        )
        rows.append(f"| {what}; any band there (network's AUC {told}) | {here} | {elsewhere} | {some} |")
    return rows


def curve_figure(found: dict[tuple[str, str], list[Curves]]) -> Figure:
    with styled():
        figure = new_figure(width=7.2, height=3.2)
        for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("insertion", "deletion"), strict=True):
            for index, name in enumerate(MAPS):
                for done, dash in ((OWN, "-"), (TURNED, ":")):
                    heights = np.mean([getattr(one, kind) for one in found[name, done]], axis=0)
                    style = series_style(index) | {"linestyle": dash, "markersize": 3}
                    label = name if done == OWN else f"{name}, {done}"
                    axes.plot(found[name, done][0].fractions, heights, label=label, **style)
            axes.set_title(kind)
            axes.set_xlabel({"insertion": "share of the picture shown", "deletion": "share hidden"}[kind])
        figure.axes[0].set_ylabel("mean probability of generated")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="apn-mini")
    parser.add_argument("--data", default="apn/weights/apn-mini/validation.jsonl", help="held-out images")
    parser.add_argument("--fit-data", default="apn/weights/apn-mini/train.jsonl", help="photographs to fit on")
    parser.add_argument("--autoencoders", default="own:nearest,own:bilinear,own:transposed,own:pixel-shuffle")
    parser.add_argument("--fit-steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=40, help="of each test")
    parser.add_argument("--side", type=int, help="pixels of the planted pictures; default one tile")
    parser.add_argument("--seeds", type=int, default=2, help="networks a wave")
    parser.add_argument("--only", default="curves,planted,sanity,patterns")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    begun, wanted = time.perf_counter(), options.only.split(",")
    model = load_model(options.weights)
    assert isinstance(model, APN)
    measured, held_out = Measured(model), read_data(options.data)
    generated = draw([sample for sample in held_out if sample.label == GENERATED], options.images)
    photos = draw(photographs(held_out), options.images)
    rows = ["| test | result | compared with | difference or goal |", "|---|---|---|---|"]
    options.out.mkdir(parents=True, exist_ok=True)
    if "curves" in wanted:
        more, found = curves(measured, generated)
        rows += more
        save_figure(curve_figure(found), options.out / "insertion-deletion.png")
    if "planted" in wanted:
        fit_photos = draw(photographs(read_data(options.fit_data)), 200)
        crops, others = (centres(some, options.side or measured.size) for some in (photos, generated))
        groups = [sample.split_group for sample, _ in crops]
        photographed = [pixels for _, pixels in crops]
        for name in options.autoencoders.split(","):
            autoencoder, line = prepare(name, fit_photos, steps=options.fit_steps)
            print(line)
            fakes = [reconstructed(autoencoder, pixels) for pixels in photographed]
            rows += planted(measured, name, photographed, fakes, groups)
        if number := min(len(crops), len(others)):
            fakes = [pixels for _, pixels in others[:number]]
            rows += planted(measured, "generated image", photographed[:number], fakes, groups[:number])
    if "sanity" in wanted:
        rows += sanity(measured, generated)
    if "patterns" in wanted:
        rows += patterns(options.seeds)
    text = "\n".join(rows) + "\n"
    (options.out / "faithfulness.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{options.images} images a test, {options.weights}, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
