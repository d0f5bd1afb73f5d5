"""Data sets as others lay them out, read by `LAYOUT:ROOT` (docs/data.md has a drawing of each).

A layout is a function of the root that yields leaves: folders whose images share label, generator, scene and split.
All of these come from the folders' names, never from the order of a listing. A folder that has no place in the layout
is an error, because a misspelled one would silently leave a part of the data set out.

Sources: GenImage (Zhu et al., NeurIPS 2023), DiffusionForensics (Wang et al., DIRE, ICCV 2023), ForenSynths (Wang et
al., CNNSpot, CVPR 2020), Chameleon (Yan et al., AIDE, ICLR 2025), as their authors publish them.
"""

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from apn.data.listing import describe_folder, list_images, subfolders
from apn.data.names import GENIMAGE, genimage_generator, suggestion
from apn.data.samples import GENERATED, REAL, SPLITS, Sample, read_folder, read_manifest, read_samples
from apn.data.select import Filters, select

SCENES = ("lsun_bedroom", "imagenet", "celebahq")  # of DiffusionForensics

# ImageNet's own file names: the same photograph, wherever it lies.
_IMAGENET_NAME = re.compile(r"(n\d{8}_\d+|ILSVRC2012_(val|test)_\d{8})")


class Layout(NamedTuple):
    """How a data set lies on disk: the shape, for people, and what lists it."""

    shape: str
    read: Callable[[Path], list[Sample]]


class Spec(NamedTuple):
    """What `LAYOUT:ROOT,split=...,generator=...,scene=...` says; no layout where it is to be recognised."""

    layout: str | None
    root: Path
    filters: Filters


class Leaf(NamedTuple):
    """A folder whose images differ in nothing but their names; the fields are those of `Sample`."""

    folder: Path
    label: int
    generator: str = ""
    scene: str = ""
    source: str = ""
    split: str = ""
    subset: str = ""


def read_data(spec: str | Path, default_split: str = "") -> list[Sample]:
    """The labelled images that a spec names; no file is opened, and the order is the same on every machine.

    spec: `LAYOUT:ROOT` with a layout of LAYOUTS, or a path that `read_samples` recognises; either may end in filters,
    as in `genimage:ROOT,split=train,generator=ADM` (`generator` and `scene` may be repeated, see `select`).
    default_split: the split to take where the spec names none and the data set has this one.
    ValueError says what was expected and what was found: an unknown layout, a missing or misspelled folder, a class
    without images, a name that no sample has.
    """
    layout, root, filters = parse_spec(spec)
    if not root.exists():
        raise ValueError(f"{root} does not exist: expected LAYOUT:ROOT or a path, where a LAYOUT is {_known_layouts()}")
    samples = read_samples(root) if layout is None else _read_layout(layout, root)
    if default_split and not filters.split and any(sample.split == default_split for sample in samples):
        filters = filters._replace(split=default_split)
    return select(samples, *filters)


def parse_spec(spec: str | Path) -> Spec:
    """Take a spec apart. A path that exists as it stands is a path, whatever colons and commas it has."""
    text = str(spec)
    name, colon, rest = text.partition(":")
    if not colon or Path(text).exists():
        return Spec(None, *_split_filters(text))
    if name in LAYOUTS:
        return Spec(name, *_split_filters(rest))
    # One letter is a Windows drive, and what holds a slash or a dot is a path.
    if len(name) > 1 and re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"unknown layout {name!r}: expected {_known_layouts()}{suggestion(name, LAYOUTS)}")
    return Spec(None, *_split_filters(text))


# The layouts ---------------------------------------------------------------------------------------------------------


def _genimage(root: Path) -> Iterator[Leaf]:
    owners: dict[str, Path] = {}
    for name, folder in _some(root, "folders of generators").items():
        generator = genimage_generator(name)
        if generator is None:
            known = f"expected one of {', '.join(GENIMAGE)}"
            raise ValueError(f"no generator of GenImage is called as {folder}: {known}{suggestion(name, GENIMAGE)}")
        if generator in owners:
            raise ValueError(f"expected one folder for {generator}, found {owners[generator]} and {folder}")
        owners[generator] = folder
        for inner in _with_splits(folder):
            for split, part in _named(inner, SPLITS, every=False).items():
                classes = _named(part, ("nature", "ai"))
                yield Leaf(classes["nature"], REAL, source="ImageNet", split=split, subset=generator)
                yield Leaf(classes["ai"], GENERATED, generator, split=split, subset=generator)


def _with_splits(folder: Path) -> list[Path]:
    """The folder itself if it holds the splits, else the folders in it, which must."""
    inner = _some(folder, "<anything>/{train,val}/{ai,nature}")
    return [folder] if set(inner) & set(SPLITS) else list(inner.values())


def _diffusionforensics(root: Path) -> Iterator[Leaf]:
    for split, part in _named(root, SPLITS, every=False).items():
        for scene, folder in _named(part, SCENES, every=False).items():
            classes = _some(folder, "real/ and a folder for each generator")
            if "real" not in classes or len(classes) < 2:
                expected = "expected real/ and a folder for each generator"
                raise ValueError(f"{expected} in {folder}, found {describe_folder(folder)}")
            for name, images in classes.items():
                generator, label = ("", REAL) if name == "real" else (name, GENERATED)
                yield Leaf(images, label, generator, scene, split=split, subset=scene)


def _forensynths(root: Path) -> Iterator[Leaf]:
    for generator, folder in _some(root, "folders of generators").items():
        if generator in SPLITS:
            raise ValueError(f"{folder} is a split, not a generator: point at the folder that holds the generators")
        inner = _some(folder, "0_real/ and 1_fake/, or folders of classes that hold them")
        scenes = {"": folder} if set(inner) & {"0_real", "1_fake"} else inner
        for scene, pair in scenes.items():
            classes = _named(pair, ("0_real", "1_fake"))
            yield Leaf(classes["0_real"], REAL, scene=scene, subset=generator)
            yield Leaf(classes["1_fake"], GENERATED, generator, scene, subset=generator)


def _read_layout(name: str, root: Path) -> list[Sample]:
    layout = LAYOUTS[name]
    try:
        return layout.read(root)
    except ValueError as error:
        raise ValueError(f"{error} ({name}: {layout.shape})") from error


def _read_leaves(leaves: Callable[[Path], Iterator[Leaf]], root: Path) -> list[Sample]:
    return [sample for leaf in leaves(root) for sample in _leaf_samples(leaf, root)]


def _read_chameleon(root: Path) -> list[Sample]:
    samples = read_folder(root)
    if len({sample.label for sample in samples}) < 2:
        raise ValueError(
            f"expected images of both classes in {root}, found {'generated' if samples[0].label else 'real'} ones only"
        )
    return samples


def _read_official(root: Path) -> list[Sample]:
    """The official code's lists; labels are 0 for real and 1 for generated there too."""
    if root.suffix.lower() != ".jsonl":
        raise ValueError(f"expected a .jsonl file of {{img_path, label}} rows, found {root}")
    return read_manifest(root, ("img_path",))


LAYOUTS = {
    "genimage": Layout("<generator>/<anything>/{train,val}/{ai,nature}", partial(_read_leaves, _genimage)),
    "diffusionforensics": Layout("<split>/<scene>/{real,<generator>}", partial(_read_leaves, _diffusionforensics)),
    "forensynths": Layout("<generator>[/<class>]/{0_real,1_fake}", partial(_read_leaves, _forensynths)),
    "chameleon": Layout("{real,generated}, {real,fake} or {0_real,1_fake}", _read_chameleon),
    "folder": Layout("{real[/<source>],generated[/<generator>]}, {real,fake} or {0_real,1_fake}", read_folder),
    "manifest": Layout("JSONL or CSV with path and label", read_manifest),
    "official": Layout("JSONL with img_path and label", _read_official),
}


def _known_layouts() -> str:
    return ", ".join(LAYOUTS)


def _split_filters(text: str) -> tuple[Path, Filters]:
    """The path and the filters of `PATH,split=...,generator=...`; a path that exists as it stands has none."""
    if Path(text).exists():
        return Path(text), Filters()
    root, *parts = re.split(r",(?=\w+=)", text)
    values: dict[str, list[str]] = {"split": [], "generator": [], "scene": []}
    for part in parts:
        name, _, value = part.partition("=")
        if name not in values or not value or (name == "split" and values["split"]):
            raise ValueError(f"expected split=, generator= or scene= with a value after {root}, found {part!r}")
        values[name].append(value)
    split = values["split"][0] if values["split"] else ""
    return Path(root), Filters(split, tuple(values["generator"]), tuple(values["scene"]))


# Leaves to samples, and errors ---------------------------------------------------------------------------------------


def _leaf_samples(leaf: Leaf, root: Path) -> Iterator[Sample]:
    below_root = leaf.folder.relative_to(root).as_posix()
    empty = True
    for path, below in list_images(leaf.folder):
        empty = False
        imagenet = _IMAGENET_NAME.match(path.name) if leaf.source == "ImageNet" else None
        group = imagenet[0] if imagenet else f"{below_root}/{below}"
        yield Sample(path, leaf.label, leaf.generator, leaf.scene, leaf.source, group, leaf.split, leaf.subset)
    if empty:
        kind = "generated" if leaf.label == GENERATED else "real"
        raise ValueError(f"expected {kind} images in {leaf.folder}, found {describe_folder(leaf.folder)}")


def _some(folder: Path, expected: str) -> dict[str, Path]:
    """The folders in a folder, of which there must be one."""
    if not (found := subfolders(folder)):
        raise ValueError(f"expected {expected} in {folder}, found {describe_folder(folder)}")
    return found


def _named(folder: Path, names: Collection[str], *, every: bool = True) -> dict[str, Path]:
    """The folders in a folder, in the order of `names`: all of these or, not `every`, some; and no others."""
    found = subfolders(folder)
    if not found or set(found) - set(names) or (every and len(found) < len(names)):
        expected = (" and " if every else " or ").join(f"{name}/" for name in names)
        raise ValueError(f"expected {expected} in {folder}, found {describe_folder(folder)}")
    return {name: found[name] for name in names if name in found}
