"""Which looks of the spatial branch carry over: a table of docs/experiments.md, no network trained.

    python bench/looks.py --out runs/looks [--log] [--fit centre|delivered|grids] [--short] [--joint [--joint-c C]]
        [--colour] [--imagenet]

A look is a view of the picture, perhaps at half of its size, perhaps less what is seen of its median or of itself saved
as JPEG, read by the mean and deviation (--log: its logarithm) of a stage of EfficientNet-Lite0. On each fold of
`folds.json` a logistic regression a look learns from one training crop an image, as configs/apn-mini.toml degrades them
(--fit centre: from its centre, both aligned and as it is; --fit delivered: and scaled to half; --fit grids: and aligned
with the grid anywhere); the logits of a set of looks are added, each in units of its spread, as the soft labels of
apn-mini are; with --joint, those of one regression on all of a set's features, with a weaker penalty, are added to them
in the same way. Tested on centre crops of 160 pixels of what the fold leaves out, saved in several ways; AUC, means
over the folds, of photographs against generated images:

    aligned, native: both so; JPEG first: both saved with quality 85 before they are aligned; generated JPEG: only the
    generated ones so, photographs aligned; half: both scaled to half, JPEG 85; photographs half: these scaled to half
    and aligned, generated ones aligned; grid anywhere: both aligned, and cut so that the blocks of that JPEG begin
    anywhere in the crop, where "aligned" has them begin at its corner.

Found: generated images, aligned, above the threshold that 5 % of the aligned photographs reach. Noise 5 and noise 1:
photographs above it with noise of 5 grey values before they are aligned, and of 1 afterwards. --colour: black-and-white
pictures, nearly all of which are photographs, are left out of the test. --imagenet: ImageNet's photographs are in no
fold's test; those that the shipped weights have not seen (apn/weights/apn-mini/validation.jsonl) are held out of each
fold's training, too, and two further columns have their AUC against the fold's generated images, aligned and native.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from delivered import QUALITY, halved
from frozen import CORPUS, NETWORK, ROOT, logistic, weights
from photographs import FALSE_ALARMS, SIZE
from ship import LEAST_COLOUR, SHIPPED
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from apn.config import read_config
from apn.crops import CROP_SIZE, Pixels, center_crop, crop
from apn.data.samples import REAL, Sample, read_samples
from apn.data.splits import leave_out, read_folds
from apn.data.transforms import TrainTransform, align, jpeg, noise
from apn.deliveries import GRID
from apn.doubts import colourfulness
from apn.image import load_image
from apn.metrics import auc
from apn.model_config import Reference, View
from apn.models.backbones import COSINES as BLOCK_COSINES
from apn.models.backbones import Normalize, build_backbone
from apn.models.statistics import StageStatistics, statistics
from apn.models.views import REFERENCES, VIEWS, reduced

IMAGENET = "imagenet_samples"
PENALTY = 1e-4  # C of scikit-learn, that of the soft labels
JOINT_PENALTY = 0.1  # the same of the regression on all looks, each divided by the root of how many features it has


class Seen(NamedTuple):
    """What one look sees, and what reads it: the number of a stage, or the name of a backbone of block cosines."""

    view: View
    reads: int | str
    reference: Reference | None = None
    scale: int = 1


LOOKS = {
    "brightness": Seen("residual", 2),
    "colour": Seen("colour-residual", 1),
    "colour, compared": Seen("colour-residual", 1, reference="median"),
    "colour at half": Seen("colour-residual", 1, scale=2),
    "colour at half, compared": Seen("colour-residual", 1, reference="median", scale=2),
    "colour at half, compared, stage 2": Seen("colour-residual", 2, reference="median", scale=2),
    "brightness at half, compared": Seen("residual", 2, reference="median", scale=2),
    "colour at a quarter, compared": Seen("colour-residual", 1, reference="median", scale=4),
    "colour, against its JPEG": Seen("colour-residual", 1, reference="jpeg"),
    "brightness, against its JPEG": Seen("residual", 2, reference="jpeg"),
    "cosines of colour": Seen("pixels", "cosines_colour", reference="jpeg"),
    "cosines of brightness": Seen("pixels", "cosines_brightness", reference="jpeg"),
    "their spread": Seen("pixels", "cosines_brightness_spread", reference="jpeg"),
}
BEFORE = ("brightness", "colour, compared")  # until the look at half
HALVED = ("colour", "colour at half, compared")
FOUR = (*BEFORE, *HALVED)  # until the look against a JPEG
FIVE = (*FOUR, "colour, against its JPEG")  # until those at block cosines
COSINES = ("cosines of colour", "cosines of brightness", "their spread")  # all against the picture's JPEG
SEVEN = (*FIVE, "cosines of colour", "their spread")  # of apn-mini as it ships
NEWEST = (FIVE, *((*FIVE, name) for name in COSINES), (*FIVE, *COSINES[:2]), SEVEN)
SETS = (
    *((name,) for name in LOOKS),
    BEFORE,
    (*BEFORE, "colour at half, compared"),
    FOUR,
    HALVED,
    (*HALVED, "colour, compared"),
    (*HALVED, "brightness"),
    (*HALVED, "colour at a quarter, compared"),
    (*FOUR, "brightness, against its JPEG"),
    (*FIVE, "brightness, against its JPEG"),
    *NEWEST,
)
SHORT = (*((name,) for name in (*FIVE, *COSINES)), *NEWEST)
WAYS = ("aligned", "native", "JPEG first", "half", "photographs half", "noise 5", "noise 1", "grid anywhere")
FITTED = {  # crops of `read_all`
    "training": (0,),
    "centre": (1 + WAYS.index("aligned"), 1 + WAYS.index("native")),
    "delivered": (1 + WAYS.index("aligned"), 1 + WAYS.index("native"), 1 + WAYS.index("half")),
    "grids": (1 + WAYS.index("aligned"), 1 + WAYS.index("native"), 1 + WAYS.index("grid anywhere")),
}
COLUMNS = {  # how photographs and generated images are saved
    "aligned": ("aligned", "aligned"),
    "native": ("native", "native"),
    "JPEG first": ("JPEG first", "JPEG first"),
    "generated JPEG": ("aligned", "JPEG first"),
    "half": ("half", "half"),
    "photographs half": ("photographs half", "aligned"),
    "grid anywhere": ("grid anywhere", "grid anywhere"),
}


def saved(pixels: Pixels, seed: int) -> list[Pixels]:
    """A picture in each of WAYS."""
    rng, centre = np.random.default_rng(seed), center_crop(pixels, CROP_SIZE)
    small, aligned = halved(pixels, SIZE), align(centre)
    return [
        aligned, centre, align(jpeg(centre, QUALITY)), jpeg(small, QUALITY), align(small, SIZE),
        align(noise(centre, 5, rng)), noise(aligned, 1, rng), crop(aligned, *rng.integers(GRID, 2 * GRID, 2), SIZE),
    ]  # fmt: skip


class Reader:
    """Statistics of stages 1 and 2, or of block cosines, of what looks see."""

    def __init__(self, *, log: bool = False) -> None:
        backbone = build_backbone(f"{NETWORK}_{'log' if log else ''}stats12", pretrained=True).eval()
        assert isinstance(backbone, StageStatistics)
        self.backbone, self.normalize = backbone, Normalize(backbone)
        self.references = {name: reference() for name, reference in REFERENCES.items()}
        self.cosines = {
            seen.reads: BLOCK_COSINES[seen.reads]() for seen in LOOKS.values() if isinstance(seen.reads, str)
        }

    def read(self, image: torch.Tensor, seen: Seen) -> torch.Tensor:
        """image (B, 3, H, W) -> (B, F)."""
        picture = reduced(image, seen.scale)
        found = self._statistics(picture, seen)
        if seen.reference is None:
            return found
        return found - self._statistics(self.references[seen.reference](picture), seen)

    def _statistics(self, picture: torch.Tensor, seen: Seen) -> torch.Tensor:
        shown = VIEWS[seen.view]()(picture)
        if isinstance(seen.reads, str):
            return self.cosines[seen.reads].statistics(shown)
        return statistics(self.backbone.maps(self.normalize(shown))[seen.reads - 1], log=self.backbone.log)


@torch.inference_mode()
def read_all(samples: Sequence[Sample], names: Sequence[str], *, log: bool) -> dict[str, np.ndarray]:
    """(N, 1 + len(WAYS), F) a look: of a training crop, then of each way of saving."""
    reader = Reader(log=log)
    transform = TrainTransform(read_config(ROOT / "configs/apn-mini.toml").data.degradations, SIZE)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for i, sample in enumerate(samples):
        pixels = load_image(sample.path).pixels
        shown = [transform(pixels, np.random.default_rng(i)), *saved(pixels, i)]
        crops = np.stack([center_crop(one, SIZE) for one in shown])
        image = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        for name in names:
            rows[name].append(reader.read(image, LOOKS[name]).numpy())
    return {name: np.stack(found) for name, found in rows.items()}


def kept(path: Path, samples: Sequence[Sample], names: Sequence[str], *, log: bool) -> dict[str, np.ndarray]:
    """`read_all`, from a file where it was done before."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **read_all(samples, names, log=log))  # type: ignore[arg-type]
    with np.load(path) as found:
        return dict(found)


Decide = Callable[[Sequence[np.ndarray]], np.ndarray]  # features (M, F) a look -> logits (M,)
Fit = Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray], Decide]  # features (M, F) a look, labels, weights


def one_a_look(seen: Sequence[np.ndarray], labels: np.ndarray, weigh: np.ndarray) -> Decide:
    fitted = [(one, logistic(one, labels, weigh, PENALTY)) for one in seen]
    each = [(decide, decide(one).std()) for one, decide in fitted]
    return lambda shown: np.sum([decide(x) / spread for (decide, spread), x in zip(each, shown, strict=True)], axis=0)


def joint(seen: Sequence[np.ndarray], labels: np.ndarray, weigh: np.ndarray, c: float = JOINT_PENALTY) -> Decide:
    scalers = [StandardScaler().fit(one) for one in seen]

    def everything(shown: Sequence[np.ndarray]) -> np.ndarray:
        parts = [scaler.transform(x) / np.sqrt(x.shape[1]) for scaler, x in zip(scalers, shown, strict=True)]
        return np.concatenate(parts, axis=1)

    model = LogisticRegression(C=c, max_iter=1000).fit(everything(seen), labels, sample_weight=weigh)
    return lambda shown: model.decision_function(everything(shown))


def judge(
    samples: Sequence[Sample],
    tables: Sequence[np.ndarray],
    fit: str,
    fits: Sequence[Fit],
    tested: np.ndarray,
    held: np.ndarray,
) -> np.ndarray:
    """Means over the folds, fitted on one of FITTED: AUC of each of COLUMNS; then found, noise 5, noise 1.

    tested: (N,), which samples are, where a fold leaves them out. held: (N,), photographs that no fold learns; where
    there are any, two more numbers are their AUC against generated images, both aligned and both native.
    """
    index = {sample.path: i for i, sample in enumerate(samples)}
    rows = []
    for fold in read_folds(CORPUS / "folds.json").values():
        train, test = leave_out(samples, fold.left_out_generators, fold.left_out_real_sources)
        test = [sample for sample in test if tested[index[sample.path]]]
        train = [sample for sample in train if not held[index[sample.path]]]
        mine, theirs = ([index[sample.path] for sample in part] for part in (train, test))
        theirs += list(np.flatnonzero(held))
        crops, logits = FITTED[fit], np.zeros((len(theirs), len(WAYS)))
        labels, weigh = (np.tile(one, len(crops)) for one in ([sample.label for sample in train], weights(train)))
        seen = [np.concatenate([table[mine, crop] for crop in crops]) for table in tables]
        for fitted in fits:
            decide = fitted(seen, labels, weigh)
            spread = decide(seen).std()
            for i in range(len(WAYS)):
                logits[:, i] += decide([table[theirs, 1 + i] for table in tables]) / spread
        real = np.array([sample.label == REAL for sample in test])
        by_way = dict(zip(WAYS, logits[: len(test)].T, strict=True))
        apart = dict(zip(WAYS, logits[len(test) :].T, strict=True))
        labels = np.repeat([0, 1], [real.sum(), (~real).sum()])
        areas = [auc(labels, np.r_[by_way[a][real], by_way[b][~real]]) for a, b in COLUMNS.values()]
        threshold = np.quantile(by_way["aligned"][real], 1 - FALSE_ALARMS)
        above = [by_way["aligned"][~real], by_way["noise 5"][real], by_way["noise 1"][real]]
        more = [
            auc(np.repeat([0, 1], [held.sum(), (~real).sum()]), np.r_[apart[way], by_way[way][~real]])
            for way in ("aligned", "native")
            if held.any()
        ]
        rows.append([*areas, *((one > threshold).mean() for one in above), *more])
    return np.mean(rows, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the features")
    parser.add_argument("--log", action="store_true", help="deviations as logarithms")
    parser.add_argument("--short", action="store_true", help="only what apn-mini has, and all block cosines")
    parser.add_argument("--joint", action="store_true", help="add a regression on all looks of a set")
    parser.add_argument("--joint-c", type=float, default=JOINT_PENALTY, help="its C; default %(default)s")
    parser.add_argument("--imagenet", action="store_true", help="how ImageNet's photographs are told, too")
    parser.add_argument("--colour", action="store_true", help="test on pictures with colour alone")
    parser.add_argument("--fit", choices=FITTED, default="training", help="what regressions are fitted on")
    options = parser.parse_args()
    samples = sorted(read_samples(CORPUS))
    kind = f"features{'-log' if options.log else ''}{'-short' if options.short else ''}.npz"
    tables = kept(options.out / kind, samples, (*FIVE, *COSINES) if options.short else tuple(LOOKS), log=options.log)
    fits = (one_a_look, partial(joint, c=options.joint_c)) if options.joint else (one_a_look,)
    tested = np.ones(len(samples), bool)
    if options.colour:
        tested = np.array([colourfulness(load_image(sample.path).pixels) >= LEAST_COLOUR for sample in samples])
    held = np.zeros(len(samples), bool)
    if options.imagenet:
        kept_back = {str(one.path) for one in read_samples(SHIPPED / "validation.jsonl") if one.source == IMAGENET}
        held = np.array([str(sample.path) in kept_back and sample.label == REAL for sample in samples])
        assert held.any(), f"none of {IMAGENET} is held out in {SHIPPED}"
    heads = ["looks", *COLUMNS, "found", "noise 5", "noise 1"]
    heads += ["ImageNet, aligned", "ImageNet, native"] if options.imagenet else []
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for names in SHORT if options.short else SETS:
        found = judge(samples, [tables[name] for name in names], options.fit, fits, tested, held)
        areas, shares, more = np.split(found, [len(COLUMNS), len(COLUMNS) + 3])
        cells = [*(f"{one:.3f}" for one in areas), *(f"{one:.0%}" for one in shares), *(f"{one:.3f}" for one in more)]
        print("| " + " | ".join(["; ".join(names), *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
