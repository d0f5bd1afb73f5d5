"""What the shipped detector says of pictures in screenshots, and how many pictures are as flat: docs/results.md.

    python bench/screenshots.py [--images 40]

Held-out pictures of the shipped weights (apn/weights/apn-mini/validation.jsonl) are pasted into a made-up post of a
social network, 1080 x 1920 pixels, with words above and below, light or dark, saved as PNG or as JPEG. Verdicts are
those of `apn detect`, before and after `most_flat` of the calibration has made flat ones `unsure`. Then the share of
all these pictures that is flatter than that, as their files are and saved once more.
"""

import argparse
from collections import Counter
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw
from ship import SHIPPED

from apn.crops import Pixels, crops_at, tile_corners
from apn.data.samples import REAL, read_samples
from apn.data.transforms import jpeg, webp
from apn.detection import Verdict
from apn.detector import TILES_PER_SIDE, Detector, load
from apn.doubts import flatness
from apn.image import load_image

WIDTH, HEIGHT, MARGIN, TOP = 1080, 1920, 40, 350
THEMES = {"light": ("white", "#141414"), "dark": ("#15202b", "#e6e6e6")}
SAVED = {"PNG": lambda pixels: pixels, "JPEG 85": lambda pixels: jpeg(pixels, 85)}
AGAIN = {
    "as they are": lambda pixels: pixels,
    "JPEG 75": lambda pixels: jpeg(pixels, 75),
    "WebP 80": lambda pixels: webp(pixels, 80),
}
WORDS: tuple[Verdict, ...] = ("generated", "unsure", "real")


def post(pixels: Pixels, theme: str) -> Pixels:
    """A picture as a phone shows it, as wide as the screen but for its margins."""
    paper, ink = THEMES[theme]
    screen = Image.new("RGB", (WIDTH, HEIGHT), paper)
    draw, picture, width = ImageDraw.Draw(screen), Image.fromarray(pixels), WIDTH - 2 * MARGIN
    screen.paste(
        picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.BICUBIC), (MARGIN, TOP)
    )
    for i in range(6):
        draw.text((MARGIN, MARGIN + 40 * i), f"A post of some social network, with words {i}", fill=ink, font_size=26)
    for i in range(8):
        draw.text((MARGIN, HEIGHT - 470 + 40 * i), f"A comment below, with words {i}", fill=ink, font_size=26)
    return np.asarray(screen)


def is_flat(detector: Detector, pixels: Pixels) -> bool:
    """Whether what it scores of a picture is."""
    corners = tile_corners(*pixels.shape[:2], detector.crop_size, TILES_PER_SIDE)
    return flatness(crops_at(pixels, corners, detector.crop_size)) > detector.calibration.most_flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="pictures of each class in screenshots")
    options = parser.parse_args()
    before, after = load(SHIPPED), load(SHIPPED)
    before.calibration = replace(before.calibration, most_flat=1.0)
    rng, samples = np.random.default_rng(0), sorted(read_samples(SHIPPED / "validation.jsonl"))
    classes = {
        "photographs": [sample for sample in samples if sample.label == REAL],
        "generated images": [sample for sample in samples if sample.label != REAL],
    }
    print(f"| in screenshots | {' | '.join(WORDS)} | {' | '.join(f'{word}, flat unsure' for word in WORDS)} |")
    print("|---" * (1 + 2 * len(WORDS)) + "|")
    for name, ones in classes.items():
        chosen = [ones[i] for i in rng.permutation(len(ones))[: options.images]]
        pictures = [load_image(sample.path).pixels for sample in chosen]
        for theme in THEMES:
            for kind, save in SAVED.items():
                posts = [save(post(pixels, theme)) for pixels in pictures]
                found = [Counter(row.verdict for row in detector.detect_many(posts)) for detector in (before, after)]
                counts = [str(one[word]) for one in found for word in WORDS]
                print(f"| {len(posts)} {name}, {theme}, {kind} | {' | '.join(counts)} |", flush=True)
    print(f"\n| flatter than {after.calibration.most_flat:g} | {' | '.join(AGAIN)} |\n|{'---|' * (1 + len(AGAIN))}")
    for name, ones in classes.items():
        shares = [
            np.mean([is_flat(after, save(load_image(one.path).pixels)) for one in ones]) for save in AGAIN.values()
        ]
        print(f"| {len(ones)} {name} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
