"""Damages small files of every format and loads each: `python tests/fuzz_image.py --inputs 100000`.

Inputs are loaded in a child process, so that a crash of a native decoder or an endless loop is seen, counted, and
survived. Input number i is the same on every run with the same --seed and packages (except of the signed files, whose
key is new every time); --keep stores what was found. Exit code 1 if anything but a picture or an ImageError came out.
"""

import argparse
import io
import random
import resource
import select
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from apn.image import ImageError, load_image

MAX_PIXELS = 10_000_000
GUARD_SECONDS = 20.0
EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seed_files() -> dict[str, bytes]:
    """Name -> a valid file of a few hundred bytes to a few thousand."""
    y, x = np.mgrid[:36, :48]
    colour = Image.fromarray(np.stack([x * 5, y * 7, (x + y) * 3], axis=-1).astype(np.uint8))
    grey, alpha = colour.convert("L"), colour.convert("RGBA")
    alpha.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0131] = 6, "Camera", "Software"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Steps: 20, Sampler: Euler".encode("utf-16-be")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))  # so that it is applied

    def several() -> dict[str, Any]:
        return {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}

    deep = Image.fromarray((x * y * 37).astype(np.uint16))
    recipes: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (colour, "JPEG", {"exif": exif, "icc_profile": wide}),
        "jpeg-progressive": (colour, "JPEG", {"progressive": True}),
        "jpeg-cmyk": (colour.convert("CMYK"), "JPEG", {}),
        "jpeg-several": (colour, "MPO", several()),
        "png": (colour, "PNG", {"exif": exif, "icc_profile": wide}),
        "png-alpha": (alpha, "PNG", {}),
        "png-palette": (colour.quantize(16), "PNG", {"transparency": bytes(range(0, 256, 16))}),
        "png-16": (deep, "PNG", {}),
        "png-animated": (colour, "PNG", several()),
        "gif-animated": (colour, "GIF", several()),
        "webp": (colour, "WEBP", {"exif": exif, "icc_profile": wide}),
        "webp-lossless": (alpha, "WEBP", {"lossless": True}),
        "webp-animated": (colour, "WEBP", several()),
        "bmp": (colour, "BMP", {}),
        "bmp-palette": (grey, "BMP", {}),
        "tiff": (colour, "TIFF", {"exif": exif}),
        "tiff-float": (Image.fromarray((x / 48).astype(np.float32)), "TIFF", {}),
        "tiff-pages": (colour, "TIFF", {"compression": "tiff_lzw"} | several()),
        "tiff-deflate": (alpha, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff-jpeg": (colour, "TIFF", {"compression": "jpeg"}),
        "tiff-packbits": (colour.convert("CMYK"), "TIFF", {"compression": "packbits"}),
        "tiff-fax": (colour.convert("1"), "TIFF", {"compression": "group4"}),
        "avif": (colour, "AVIF", {"exif": exif.tobytes()}),
        "jpeg2000": (colour, "JPEG2000", {}),
        "ppm": (colour, "PPM", {}),
        "ico": (alpha, "ICO", {"sizes": [(16, 16), (32, 32)]}),
        "ico-bitmap": (alpha, "ICO", {"sizes": [(32, 32)], "bitmap_format": "bmp"}),
    }
    files = {"ppm-plain": b"P3\n3 2\n255\n" + b"1 2 3 " * 6, "pgm-16": b"P5 4 2 1000\n" + bytes(range(16))}
    for name, (image, format, options) in recipes.items():
        image.copy().save(buffer := io.BytesIO(), format, **options)  # saving leaves settings on the image
        files[name] = buffer.getvalue()
    if find_spec("pillow_heif"):
        from pillow_heif import from_pillow

        from_pillow(colour).save(buffer := io.BytesIO(), quality=80)
        files["heic"] = buffer.getvalue()
    if find_spec("c2pa") and find_spec("cryptography"):
        from test_provenance import signed

        files |= {"c2pa-jpeg": signed("JPEG"), "c2pa-png": signed("PNG")}
    return files


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at, span = rng.randrange(len(damaged)), rng.randrange(1, 65)
        match rng.randrange(8):
            case 0:  # one bit
                damaged[at] ^= 1 << rng.randrange(8)
            case 1:  # some bytes
                damaged[at : at + span] = rng.randbytes(min(span, len(damaged) - at))
            case 2:  # a length, offset, count or size
                damaged[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(EXTREMES))
            case 3:
                damaged[at : at + 2] = struct.pack(rng.choice("<>") + "H", rng.choice(EXTREMES) & 0xFFFF)
            case 4:  # an early end
                del damaged[max(1, at) :]
            case 5:  # a part of another file
                start = rng.randrange(len(other))
                damaged[at : at + rng.choice((0, span))] = other[start : start + span * 8]
            case 6:  # a part twice
                damaged[at:at] = damaged[at : at + span * 8]
            case 7:
                del damaged[at : min(at + span, len(damaged) - 1)]
    return bytes(damaged)


def with_checksums(data: bytes) -> bytes:
    """A PNG with its checksums put right, so that damage gets past them to the decoder."""
    repaired, at = bytearray(data), 8
    while at + 12 <= len(repaired):
        (length,) = struct.unpack_from(">I", repaired, at)
        end = at + 8 + length
        if end + 4 > len(repaired):
            break
        struct.pack_into(">I", repaired, end, zlib.crc32(repaired[at + 4 : end]))
        at = end + 4
    return bytes(repaired)


class Inputs:
    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.files = seed, {path.name: path.read_bytes() for path in folder.iterdir()}
        self.names = sorted(self.files)

    def make(self, index: int) -> tuple[str, bytes, bool]:
        """(name of the seed file, damaged bytes, whether a truncated file is allowed) of input number `index`."""
        rng = random.Random(f"{self.seed}:{index}")
        name = self.names[index % len(self.names)]
        data = mutate(self.files[name], self.files[rng.choice(self.names)], rng)
        if name.startswith("png") and rng.random() < 0.7:
            data = with_checksums(data)
        return name, data, rng.random() < 0.5


def work(inputs: Inputs, first: int, last: int) -> None:
    """The child: one line `index outcome seconds name peak-kilobytes` an input, preceded by `index` when it starts."""
    for index in range(first, last):
        print(index, flush=True)
        name, data, allow_truncated = inputs.make(index)
        started = time.perf_counter()
        try:
            loaded = load_image(data, max_pixels=MAX_PIXELS, allow_truncated=allow_truncated)
            valid = loaded.pixels.dtype == np.uint8 and loaded.pixels.shape == (loaded.height, loaded.width, 3)
            outcome = "loaded" if valid else "wrong-result"
        except ImageError as error:
            outcome = "out-of-memory" if isinstance(error.__cause__, MemoryError) else "ImageError"
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome = type(error).__name__
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{index} {outcome} {seconds:.4f} {name} {peak}", flush=True)


def drive(inputs: Inputs, arguments: argparse.Namespace) -> int:
    outcomes: Counter[str] = Counter()
    slowest, peak, findings = (0.0, "", 0), 0, []
    started = time.monotonic()
    current, last = arguments.first, arguments.first + arguments.inputs
    while current < last and time.monotonic() - started < arguments.seconds:
        command = [sys.executable, __file__, "--worker", str(arguments.worker), "--seed", str(arguments.seed)]
        command += ["--first", str(current), "--inputs", str(last - current)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as child:
            assert child.stdout  # stderr has the remarks of libtiff about each damaged file
            lines, rest = [], b""
            while current < last and time.monotonic() - started < arguments.seconds:
                # The first line waits for imports too.
                if not select.select([child.stdout], [], [], GUARD_SECONDS)[0]:
                    outcomes["hang"] += 1
                    findings.append((current, "hang"))
                    current += 1
                    break
                if not (block := child.stdout.read(1 << 16)):
                    outcomes["crash"] += 1
                    findings.append((current, f"crash {child.wait()}"))
                    current += 1
                    break
                *lines, rest = (rest + block).split(b"\n")
                for index, *result in (line.decode().split() for line in lines):
                    current = int(index)
                    if result:
                        outcome, seconds, name, kilobytes = result
                        outcomes[outcome] += 1
                        slowest, peak = max(slowest, (float(seconds), name, current)), max(peak, int(kilobytes))
                        if outcome not in {"loaded", "ImageError"}:
                            findings.append((current, outcome))
                        current += 1
            child.kill()
    for index, outcome in findings[:50]:
        name, data, allow_truncated = inputs.make(index)
        print(f"input {index} ({name}, allow_truncated={allow_truncated}): {outcome}")
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{index}-{name}").write_bytes(data)
    total = outcomes.total()
    print(f"{total:,} inputs of {len(inputs.names)} kinds in {time.monotonic() - started:.0f} s, seed {arguments.seed}")
    print(", ".join(f"{outcome} {count:,}" for outcome, count in outcomes.most_common()))
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}, input {slowest[2]}), peak memory {peak / 1024:.0f} MiB")
    return 1 if findings else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after this many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that were findings")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # the folder of seed files
    arguments = parser.parse_args()
    if arguments.worker:
        work(Inputs(arguments.seed, arguments.worker), arguments.first, arguments.first + arguments.inputs)
        return 0
    with TemporaryDirectory() as folder:
        arguments.worker = Path(folder)
        for name, data in seed_files().items():
            (arguments.worker / name).write_bytes(data)
        return drive(Inputs(arguments.seed, arguments.worker), arguments)


if __name__ == "__main__":
    sys.exit(main())
