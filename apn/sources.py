"""What a detector takes for an image: the file in any form, or its pixels."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np

from apn.image import ImageError, LoadedImage, load_image
from apn.imagefile import Source as File
from apn.imagefile import is_source

# A function is called in a thread that decodes ahead, and may raise ImageError.
Source = File | LoadedImage | np.ndarray | Callable[[], LoadedImage]


def open_source(source: Source, **options: Any) -> LoadedImage:
    """The image of any source; options: of `load_image`, where it is a file. Raises ImageError, and TypeError for what
    is no source."""
    if callable(source):
        source = source()
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ImageError(f"expected RGB pixels (H, W, 3) uint8, found {source.shape} {source.dtype}")
        return LoadedImage(source, "pixels", 1, False, None, {})
    if not is_source(source):
        raise TypeError(
            "expected a path, the bytes of a file, a binary file, or RGB pixels (H, W, 3) uint8 (of a Pillow image "
            f"numpy.asarray(image.convert('RGB'))), found {type(source).__name__}"
        )
    return load_image(source, **options)


class HashedFile:
    """A file as a source, whose SHA-256 is that of the bytes which were judged. options: of `load_image`.

    sha256: in hexadecimal, once it is loaded; None before, and where it cannot be read.
    """

    def __init__(self, path: File, **options: Any) -> None:
        self.path, self.options = path, options
        self.sha256: str | None = None

    def __call__(self) -> LoadedImage:
        loaded = load_image(self.path, digest=True, **self.options)
        self.sha256 = loaded.sha256
        return loaded


def is_one(images: object) -> bool:
    """Whether it is a single image, which would be taken byte by byte, line by line or row by row."""
    pixels = isinstance(images, np.ndarray) and images.ndim in (2, 3)  # of one axis: paths; of four: several images
    return pixels or isinstance(images, LoadedImage) or is_source(images)


def named(images: Iterable[Source], names: Iterable[str | os.PathLike[str]] | None) -> Iterator[tuple[Source, str]]:
    """Each image with its name: the one given, else its path or number. Raises ValueError where one has none."""
    if names is not None:
        nothing: Any = object()
        for image, name in zip_longest(images, names, fillvalue=nothing):
            if image is nothing or name is nothing:
                more = "names" if image is nothing else "images"
                raise ValueError(f"expected a name for each image, found more {more}")
            yield image, os.fspath(name)
        return
    for number, image in enumerate(images):
        yield image, os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
