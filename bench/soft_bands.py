"""Do bands learn from the task? Hard, straight-through and soft bands trained alike, without the band-order loss.

    python bench/soft_bands.py hard --out runs/bands-hard [--steps 100]        (also: straight-through, soft)

Without the band-order loss and weight decay, only the task's gradient can move the proposers' weights. Prints one row
of a Markdown table: how far the proposers' weights and the band edges moved, and the AUC of the held-out split.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import seed_everything

from apn.bootstrap import bootstrap_interval
from apn.checkpoint import load_model
from apn.config import read_config
from apn.data.dataset import evaluation_loader
from apn.data.samples import read_samples
from apn.data.transforms import AlignedTransform
from apn.metrics import auc, probabilities
from apn.models.apn import APN
from apn.train import train

IMAGES_OF_EDGES = 32


def proposer_weights(model: APN) -> torch.Tensor:
    proposers = (model.frequency.amplitude_proposer, model.frequency.phase_proposer)
    return torch.cat([parameter.detach().flatten() for p in proposers for parameter in p.parameters()])


@torch.no_grad()
def edges(model: APN, image: torch.Tensor) -> torch.Tensor:
    """All band starts and ends of a batch, fractions of the axis."""
    output = model.eval()(image, irrelevant=False)
    return torch.cat([edge.flatten() for axis in output.proposals.axes() for edge in (axis.start, axis.end)])


@torch.no_grad()
def held_out(model: APN, manifest: Path) -> tuple[list[int], np.ndarray, np.ndarray, list[str]]:
    """labels, scores of the joint and of the frequency logits, split groups."""
    samples = read_samples(manifest)
    outputs = [
        (output.logits, output.logits_frequency)
        for batch in evaluation_loader(samples, AlignedTransform(model.config.image_size))
        for output in [model(batch.image, irrelevant=False)]
    ]
    joint, frequency = (probabilities(torch.cat(parts).numpy()) for parts in zip(*outputs, strict=True))
    return [sample.label for sample in samples], joint, frequency, [sample.split_group for sample in samples]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bands", choices=("hard", "straight-through", "soft"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    changes = (f"model.bands={options.bands}", f"train.steps={options.steps}", "loss.band_order=0")
    config = read_config("configs/apn-mini.toml", (*changes, "train.weight_decay=0", "data.validation_images=32"))
    seed_everything(config.train.seed, verbose=False)
    before = APN(config.model)  # as `train` makes it: the same seed, the same first random numbers
    train(config, options.out, command=f"python bench/soft_bands.py {options.bands} --out {options.out}")
    after = load_model(options.out / "last")
    manifest = options.out / "validation.jsonl"
    few = read_samples(manifest)[:: max(len(read_samples(manifest)) // IMAGES_OF_EDGES, 1)]
    (image, *_), *_ = evaluation_loader(few, AlignedTransform(config.model.image_size), len(few))
    weights = (proposer_weights(after) - proposer_weights(before)).abs().max().item()
    before.load_state_dict(  # batch norm statistics are not learning: compare edges under the trained ones
        {n: v for n, v in after.state_dict().items() if n.endswith(("running_mean", "running_var"))}, strict=False
    )
    moved = (edges(after, image) - edges(before, image)).abs().mean().item()
    labels, joint, frequency, groups = held_out(after, manifest)
    cells = [f"{auc(labels, s):.3f} ({low:.3f} to {high:.3f})" for s in (joint, frequency)
             for low, high in [bootstrap_interval(labels, s, groups)]]  # fmt: skip
    print(f"| {options.bands} | {weights:.2g} | {moved:.2g} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
