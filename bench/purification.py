"""Purification over training: checkpoints of one run -> one table (purification.md) and one figure (purification.png).

    python bench/purification.py CHECKPOINT... --out DIR [--data MANIFEST] [--images N] [--no-untrained]

Each checkpoint's embeddings are kept in DIR/*.parquet, so that the same command goes on where it was stopped. The first
row is the network as training finds it: the settings of the first checkpoint, its pretrained backbones, nothing learnt.
`apn train` keeps the last and the best checkpoint: copy RUN/last aside during a run to have more of them.
"""

import argparse
from pathlib import Path

import torch

from apn.backends import find_weights
from apn.checkpoint import read_checkpoint_config, read_training, save_checkpoint
from apn.commands.embed import embed
from apn.commands.purification import purification
from apn.models.build import build_network


def untrained(checkpoint: Path, out: Path) -> Path:
    """A checkpoint of the same settings and the same first random numbers, before the first step.

    SystemExit where `out` holds that of other settings.
    """
    folder, config = out / "untrained", read_checkpoint_config(checkpoint)
    if folder.exists():
        if read_checkpoint_config(folder) != config:
            raise SystemExit(f"{folder} has other settings than {checkpoint}: choose another --out")
    else:
        torch.manual_seed(config.train.seed)
        save_checkpoint(folder, build_network(config.model), config, {"step": 0})
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="in the order of training; names of shipped weights too")
    parser.add_argument("--data", default="apn/weights/apn-mini/validation.jsonl", help="held-out images")
    parser.add_argument("--images", type=int, help="draw so many; default all")
    parser.add_argument("--untrained", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folders = [find_weights(name) for name in options.checkpoints]
    if options.untrained:
        folders.insert(0, untrained(folders[0], options.out))
    tables = [options.out / f"{folder.name}-{read_training(folder)['step']}.parquet" for folder in folders]
    if len(set(tables)) < len(tables):  # a second one would be refused as another's table, or taken for the first
        parser.error("expected checkpoints of other names or steps each: rename the folders of those that share both")
    for folder, table in zip(folders, tables, strict=True):
        embed([options.data], table, heat_maps=False, limit=options.images, weights=str(folder))
    purification(tables, options.out)


if __name__ == "__main__":
    main()
