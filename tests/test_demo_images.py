"""The images of demo/images are the ones that demo/README.md describes, and their files do not give away the class."""

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from apn.image import IMAGE_EXTENSIONS, load_image

DEMO = Path(__file__).parent.parent / "demo"
IMAGES = DEMO / "images"
LISTED = re.findall(r"^\| `([^`]+)` \|", (DEMO / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
PHOTOGRAPHS = [name for name in LISTED if name.startswith("photo-")]
GENERATED = [name for name in LISTED if not name.startswith("photo-")]
RECONSTRUCTED = [name for name in LISTED if name.startswith("reconstructed-")]
SOURCES = {"astronaut": "astronaut", "cat": "chelsea", "coffee": "coffee", "rocket": "rocket"}  # scene: skimage.data


def psnr(pixels: np.ndarray, reference: np.ndarray) -> float:
    """Of two (H, W, 3) uint8 images, in dB; inf if they are the same."""
    error = np.mean((pixels.astype(np.float64) - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def test_readme_lists_the_files_and_no_others() -> None:
    assert sorted(LISTED) == sorted(path.name for path in IMAGES.iterdir())


def test_names_say_which_class() -> None:
    assert {name.partition("-")[0] for name in PHOTOGRAPHS} == {"photo"}
    assert {name.partition("-")[0] for name in GENERATED} == {"reconstructed", "synthesised"}


@pytest.mark.parametrize("name", LISTED)
def test_loads_and_is_large_enough(name: str) -> None:
    image = load_image(IMAGES / name)
    assert min(image.width, image.height) >= 224
    assert image.frames == 1
    assert Path(name).suffix in IMAGE_EXTENSIONS


def test_together_small() -> None:
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < 1_500_000


def test_format_quality_and_metadata_do_not_tell_the_class() -> None:
    def traits(names: list[str]) -> Counter:
        images = [load_image(IMAGES / name) for name in names]
        return Counter((image.format, image.quality, tuple(sorted(image.metadata.items()))) for image in images)

    assert traits(PHOTOGRAPHS) == traits(GENERATED)
    assert len({load_image(IMAGES / name).format for name in PHOTOGRAPHS}) >= 3


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photograph_is_the_one_of_scikit_image(name: str) -> None:
    data = pytest.importorskip("skimage.data")
    scene = Path(name).stem.removeprefix("photo-")
    limit = float("inf") if name.endswith(".png") else 32  # dB
    assert psnr(load_image(IMAGES / name).pixels, getattr(data, SOURCES[scene])()) >= limit


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_reconstruction_is_near_its_photograph_but_not_a_copy(name: str) -> None:
    twin = load_image(IMAGES / name.replace("reconstructed", "photo"))
    assert 27 <= psnr(load_image(IMAGES / name).pixels, twin.pixels) <= 40


@pytest.mark.slow
def test_script_writes_the_files_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 4 steps of training: everything but the look of the pictures."""
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setattr(sys, "argv", ["make_images.py", "--out", str(tmp_path), "--steps", "4"])
    threads = torch.get_num_threads()
    try:
        import make_images

        make_images.main()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert sorted(LISTED) == sorted(path.name for path in tmp_path.iterdir())
