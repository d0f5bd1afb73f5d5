"""Aligned fakes: photographs through an autoencoder, saved as the photograph was, so that only the decoder tells them.

Source: the training material of AutoGAN (2019), AlignedForensics (2024), B-Free (2024) and Dual Data Alignment (2025):
a fake of the same content, size and format leaves a detector nothing else to learn. A JPEG's fake is saved with the
photograph's own quantisation tables and subsampling on the same 8 x 8 grid: both have the same compression history.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, JpegImagePlugin
from torch import Tensor

from apn.crops import Pixels, random_crop
from apn.data.samples import GENERATED, MANIFEST, REAL, Sample, read_manifest, relative_path, write_manifest
from apn.image import ImageError, load_image
from apn.models.autoencoders import Autoencoder, SmallAutoencoder, fit, open_autoencoder, reconstruct
from apn.threads import ahead as map_ahead
from apn.wholefile import write_whole

FIT_CROP, FIT_PHOTOS, FIT_CROPS = 64, 4, 4  # a batch: so many crops of each of so many photographs
JPEG, LOSSLESS = ".jpg", ".webp"
LONGEST_STEM = 150  # bytes: file systems take names of 255, and those of unfinished files are longer
SIGNATURE = "made-by.json"  # beside the fakes of one autoencoder


def photographs(samples: Sequence[Sample]) -> list[Sample]:
    """The real ones. Raises ValueError where there are none."""
    real = [sample for sample in samples if sample.label == REAL]
    if not real:
        raise ValueError(f"expected photographs (label 0) to reconstruct, found {len(samples)} generated images only")
    return real


def prepare(name: str, photos: Sequence[Sample], *, steps: int, seed: int = 0) -> tuple[Autoencoder, str]:
    """The autoencoder of a `KIND:WHICH` name and a line about it; one of our own is trained on these photographs."""
    torch.manual_seed(seed)
    autoencoder = open_autoencoder(name)
    if not isinstance(autoencoder, SmallAutoencoder):
        return autoencoder, name
    unreadable: dict[Path, str] = {}
    error = fit(autoencoder, _fit_batches(photos, seed, unreadable), steps)
    line = f"{name}, trained for {steps} steps to a mean absolute error of {error:.4f}"
    if unreadable:
        path, reason = next(iter(unreadable.items()))
        line += f", without {len(unreadable)} photographs that could not be read, the first {path}: {reason}"
    return autoencoder, line


def synthesize(
    name: str, autoencoder: Autoencoder, photos: Sequence[Sample], out: Path, made_by: Mapping[str, Any] | None = None
) -> Iterator[Sample | str]:
    """A fake of each photograph into the folder `out`; yields its sample, or why the photograph could not be read.

    A fake that is there already is kept, so an interrupted run goes on. The manifest comes last, see `write_fakes`.
    made_by: JSON values that tell this autoencoder from another of its name; they stay beside the fakes.
    Raises ValueError as `require_fitting` does.
    """
    folder = require_fitting(name, photos, out, made_by)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SIGNATURE, f"{json.dumps(_signature(name, made_by))}\n".encode())
    generator = folder.name
    stems = [folder / _name(photo.path, out) for photo in photos]
    pictures = map_ahead(lambda pair: _made(pair[1]) or _read(pair[0]), zip(photos, stems, strict=True), workers=1)
    for photo, stem, picture in zip(photos, stems, pictures, strict=True):
        if isinstance(picture, str):
            yield picture
            continue
        path = picture if isinstance(picture, Path) else save_like(_through(autoencoder, picture), photo.path, stem)
        yield photo._replace(path=path, label=GENERATED, generator=generator, subset="", original=str(photo.path))


def require_fitting(name: str, photos: Sequence[Sample], out: Path, made_by: Mapping[str, Any] | None = None) -> Path:
    """The folder in `out` of this autoencoder's fakes, which need not be there; for the start of long work.

    Raises ValueError where the fakes that are there are another autoencoder's, or those of other photographs are
    listed, which the new manifest would lose.
    """
    kind, _, which = name.partition(":")
    generator = kind if Path(which).is_dir() else f"{kind}-{Path(which).name.lower().replace('_', '-')}"
    _require_same_photographs(out, generator, photos)
    signature, ours = out / generator / SIGNATURE, _signature(name, made_by)
    if signature.is_file() and (before := json.loads(signature.read_text(encoding="utf-8"))) != ours:
        raise ValueError(
            f"expected fakes by {ours} in {signature.parent}, found those by {before}: choose another --out"
        )
    return signature.parent


def _require_same_photographs(out: Path, generator: str, photos: Sequence[Sample]) -> None:
    """ValueError where the manifest in `out` lists fakes of others than these photographs and this generator."""
    manifest = out / MANIFEST
    if not (manifest.is_file() and manifest.stat().st_size):
        return
    originals = {os.path.abspath(photo.path) for photo in photos}
    others = [fake for fake in read_manifest(manifest) if fake.generator != generator or fake.original not in originals]
    if others:
        raise ValueError(
            f"expected fakes by {generator} of these {len(photos)} photographs in {manifest}, found {len(others)} "
            f"others, the first by {others[0].generator} of {others[0].original}: choose another --out, or delete it"
        )


def _signature(name: str, made_by: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"autoencoder": name, **(made_by or {})}


def write_fakes(fakes: Sequence[Sample], out: Path) -> Path:
    """The manifest of the fakes in `out`, each with the photograph it was made from as `original`."""
    write_manifest(fakes, out / MANIFEST)
    return out / MANIFEST


def save_like(pixels: Pixels, original: Path, stem: Path) -> Path:
    """(H, W, 3) saved as `original` is: a JPEG with its tables and subsampling, grey where that is; anything else as
    lossless WebP.

    Written whole or not at all. Returns the path, `stem` with the format's suffix.
    """
    file, image = io.BytesIO(), Image.fromarray(pixels)
    with Image.open(original) as source:
        if source.format == "JPEG":
            tables = list(source.quantization.values())  # type: ignore[attr-defined]
            subsampling = JpegImagePlugin.get_sampling(source)  # -1: grey or unusual
            image = image.convert("L") if source.mode == "L" else image
            image.save(file, "JPEG", qtables=tables[:2], subsampling=max(subsampling, 0))
            path = _with(stem, JPEG)
        else:
            image.save(file, "WEBP", lossless=True, method=2)
            path = _with(stem, LOSSLESS)
    write_whole(path, file.getvalue())
    return path


def _made(stem: Path) -> Path | None:
    """The fake that an earlier run left there."""
    return next((path for path in (_with(stem, JPEG), _with(stem, LOSSLESS)) if path.is_file()), None)


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # not with_suffix: a stem may hold dots


def _read(photo: Sample) -> Pixels | str:
    try:
        return load_image(photo.path).pixels
    except ImageError as error:
        return f"{photo.path}: {error}"


def _through(autoencoder: Autoencoder, pixels: Pixels) -> Pixels:
    fake = reconstruct(autoencoder, _tensor(pixels[None]))
    return (fake[0].permute(1, 2, 0) * 255).round().byte().numpy()


def _tensor(pixels: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _name(photo: Path, out: Path) -> str:
    """A fake's file name without suffix: its photograph's, and a hash of where that lies from `out`, so that no fake is
    taken for one of another photograph of the same name."""
    place = relative_path(photo, out.resolve())
    stem = os.fsencode(photo.stem)[:LONGEST_STEM].decode("utf-8", "ignore")
    return f"{stem}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"


def _fit_batches(photos: Sequence[Sample], seed: int, unreadable: dict[Path, str]) -> Iterator[Tensor]:
    """Without end. unreadable: takes the photographs that could not be read, in place of which others are drawn, and
    why. ValueError where none can be read."""
    rng = np.random.default_rng(seed)

    def drawn() -> Pixels:
        while len(unreadable) < len(photos):
            path = photos[int(rng.integers(len(photos)))].path
            if path in unreadable:
                continue
            try:
                return load_image(path).pixels
            except ImageError as error:
                unreadable[path] = str(error)
        path, reason = next(iter(unreadable.items()))
        raise ValueError(f"none of the {len(photos)} photographs can be read; {path}: {reason}")

    while True:
        chosen = (drawn() for _ in range(FIT_PHOTOS))
        crops = [random_crop(pixels, FIT_CROP, rng) for pixels in chosen for _ in range(FIT_CROPS)]
        yield _tensor(np.stack(crops))
