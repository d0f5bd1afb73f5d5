"""Miniature data sets in the shapes of the large ones. From any test: `from data.trees import make_genimage`.

Every picture is smooth noise of its own seed; a generated one also carries a fine periodic pattern, which a tiny
network learns in seconds. Photographs are JPEG and generated ones PNG, as in most data sets, unless told otherwise.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

# The generators of GenImage by the names that we use.
CANONICAL = ["Midjourney", "SD v1.4", "SD v1.5", "ADM", "GLIDE", "Wukong", "VQDM", "BigGAN"]
# As their folders are called in the wild, with the folder inside.
GENIMAGE_FOLDERS = {
    "Midjourney": "imagenet_midjourney",
    "stable_diffusion_v_1_4": "imagenet_ai_0419_sdv4",
    "stable_diffusion_v_1_5": "imagenet_ai_0424_sdv5",
    "ADM": "imagenet_ai_0508_adm",
    "glide": "imagenet_glide",
    "wukong": "imagenet_ai_0424_wukong",
    "VQDM": "imagenet_ai_0419_vqdm",
    "BigGAN": "imagenet_ai_0419_biggan",
}
FORENSYNTHS = {"progan": ("airplane", "cat"), "stylegan": ("bedroom",), "deepfake": ("",)}
EXTENSIONS = {"JPEG": ".JPEG", "PNG": ".png", "WEBP": ".webp"}


def picture(seed: int, generated: bool, size: int = 80) -> Image.Image:
    """size x size RGB; a checkerboard of one pixel and 14 levels is what marks a generated one."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 196, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    grid = 14 * (-1.0) ** np.add.outer(np.arange(size), np.arange(size))[..., None]
    noisy = smooth + rng.normal(0, 4, smooth.shape) + generated * grid
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def save(path: Path, seed: int, generated: bool, size: int = 80, file_format: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 96} if file_format == "JPEG" else {"lossless": True} if file_format == "WEBP" else {}
    picture(seed, generated, size).save(path, file_format, **options)


def make_genimage(
    root: Path,
    per_class: int = 4,
    *,
    size: int = 80,
    generators: Sequence[str] = tuple(GENIMAGE_FOLDERS),
    splits: Sequence[str] = ("train", "val"),
    formats: tuple[str, str] = ("JPEG", "PNG"),
) -> Path:
    """`genimage:root` of `per_class` real and as many generated images for each generator and split.

    generators: names of folders. formats: of the photographs and of the generated ones. Returns the root.
    """
    seeds = count()
    for generator in generators:
        inner = GENIMAGE_FOLDERS[generator]
        for split in splits:
            for i, seed in zip(range(per_class), seeds, strict=False):
                photo = f"n01440764_{seed}" if split == "train" else f"ILSVRC2012_val_{seed:08}"
                folder = root / generator / inner / split
                save(folder / "nature" / (photo + EXTENSIONS[formats[0]]), seed, False, size, formats[0])
                made = f"{i:03}_{inner.rsplit('_', 1)[-1]}_{seed:05}{EXTENSIONS[formats[1]]}"
                save(folder / "ai" / made, 10_000 + seed, True, size, formats[1])
    return root


def make_diffusionforensics(root: Path, per_class: int = 2, *, size: int = 32) -> Path:
    """`diffusionforensics:root`: two scenes to train on, one more in the test; class folders inside ImageNet's."""
    contents = {
        "train": {"lsun_bedroom": ("adm", "iddpm"), "imagenet": ("adm",)},
        "test": {"lsun_bedroom": ("adm", "sdv2"), "celebahq": ("sdv2", "midjourney")},
    }
    seeds = count()
    for split, scenes in contents.items():
        for scene, generators in scenes.items():
            for name in ("real", *generators):
                folder = root / split / scene / name / ("n01440764" if scene == "imagenet" else "")
                for seed in (next(seeds) for _ in range(per_class)):
                    save(folder / f"{seed:05}.png", seed, name != "real", size)
    return root


def make_forensynths(root: Path, per_class: int = 2, *, size: int = 32) -> Path:
    """`forensynths:root`: generators with classes, with one class, and without any."""
    seeds = count()
    for generator, classes in FORENSYNTHS.items():
        for name in classes:
            for generated, folder in enumerate(("0_real", "1_fake")):
                for seed in (next(seeds) for _ in range(per_class)):
                    save(root / generator / name / folder / f"{seed:05}.png", seed, bool(generated), size)
    return root


def make_folder(
    root: Path,
    per_class: int = 4,
    *,
    size: int = 80,
    names: tuple[str, str] = ("real", "generated"),
    formats: tuple[str, str] = ("JPEG", "PNG"),
) -> Path:
    """`folder:root`: one real source, one generator; with `names` ("0_real", "1_fake") the shape of Chameleon."""
    for generated, (name, file_format, origin) in enumerate(zip(names, formats, ("phone", "toy"), strict=True)):
        for i in range(per_class):
            seed = i + 10_000 * generated
            save(root / name / origin / f"{i:03}{EXTENSIONS[file_format]}", seed, bool(generated), size, file_format)
    return root
