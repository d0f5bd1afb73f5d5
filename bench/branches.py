"""What each branch of apn-mini tells of generators that were left out: a table of docs/results.md.

    python bench/branches.py runs/leaveout/apn-mini

The folder holds a run a fold, as bench/compare.py leaves them. Each image is one crop, from the centre of what the
aligned protocol shows and of the file as it is; AUC, aligned / native, of the three logits of APN, over all images of
a fold.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from apn.checkpoint import load_model
from apn.crops import center_crop
from apn.data.samples import Sample, read_samples
from apn.data.transforms import align
from apn.image import load_image
from apn.metrics import auc
from apn.models.apn import APN

LOGITS = {"spatial": "logits_spatial", "frequency": "logits_frequency", "both, what decides": "logits"}
TOGETHER = 1  # image, of two crops: larger batches leave the cache


@torch.inference_mode()
def margins(model: APN, samples: Sequence[Sample]) -> Iterator[np.ndarray]:
    """Arrays (n, 2, 3): logit of generated less that of real; aligned and native; by LOGITS."""
    size = model.config.image_size
    for first in range(0, len(samples), TOGETHER):
        some = samples[first : first + TOGETHER]
        pictures = [load_image(sample.path).pixels for sample in some]
        crops = np.stack([center_crop(shown, size) for one in pictures for shown in (align(one), one)])
        output = model(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255, irrelevant=False)
        logits = [getattr(output, name) for name in LOGITS.values()]
        found = torch.stack([one[:, 1] - one[:, 0] for one in logits], dim=1)  # (2 n, 3)
        yield found.unflatten(0, (len(some), 2)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the folds' runs")
    options = parser.parse_args()
    folds = sorted(path.parent.name for path in options.runs.glob("*/run"))
    aucs = []
    for fold in folds:
        run = options.runs / fold / "run"
        model = load_model(run / "last")
        assert isinstance(model, APN), "only APN has branches"
        samples = read_samples(run / "test.jsonl")
        labels = np.array([sample.label for sample in samples])
        found = np.concatenate(list(margins(model.eval(), samples)))  # (N, 2, 3)
        aucs.append([[auc(labels, found[:, shown, which]) for shown in (0, 1)] for which in range(len(LOGITS))])
    table = np.array(aucs).transpose(1, 0, 2)  # (3, folds, 2)
    print("| logit | " + " | ".join(folds) + " | mean |\n|" + "---|" * (len(folds) + 2))
    for name, of_folds in zip(LOGITS, table, strict=True):
        rows = [*of_folds, of_folds.mean(axis=0)]
        print(f"| {name} | " + " | ".join(f"{aligned:.3f} / {native:.3f}" for aligned, native in rows) + " |")


if __name__ == "__main__":
    main()
