"""Aligned fakes: the same size, format and compression as the photograph, listed with it; interrupted runs go on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin

from apn.commands.synthesize import synthesize as command
from apn.data.layouts import read_data
from apn.data.samples import Sample
from apn.image import load_image
from apn.lock import alone
from apn.models.autoencoders import SmallAutoencoder
from apn.synthesize import photographs, prepare, save_like, synthesize, write_fakes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i, (name, options) in enumerate(
        {
            "real/a/1.jpg": {"quality": 71, "subsampling": "4:4:4"},
            "real/b/1.jpg": {"quality": 93, "subsampling": "4:2:0"},
            "real/b/2.png": {},
            "generated/g/1.png": {},
        }.items()
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.kron(rng.integers(0, 256, (5 + i, 6, 3)), np.ones((9, 9, 1))).astype(np.uint8)
        Image.fromarray(picture).save(path, **options)
    return tmp_path / "data"


def test_a_fake_has_its_photographs_size_format_tables_and_subsampling(data: Path, tmp_path: Path) -> None:
    photos = photographs(read_data(str(data)))
    autoencoder, _ = prepare("own:nearest", photos, steps=2)
    fakes = list(synthesize("own:nearest", autoencoder, photos, tmp_path / "out"))
    listed = read_data(str(write_fakes(fakes, tmp_path / "out")))
    assert [Path(fake.original) for fake in listed] == [photo.path for photo in photos]
    assert {(fake.label, fake.generator) for fake in listed} == {(1, "own-nearest")}
    assert [fake.split_group for fake in listed] == [photo.split_group for photo in photos]
    for photo, fake in zip(photos, listed, strict=True):
        with Image.open(photo.path) as before, Image.open(fake.path) as after:
            assert after.size == before.size
            if before.format == "JPEG":
                assert after.quantization == before.quantization
                assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
            else:
                assert after.format == "WEBP"
        assert (load_image(photo.path).pixels != load_image(fake.path).pixels).any()


def test_a_lossless_photograph_gets_a_lossless_fake(data: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = save_like(pixels, data / "real/b/2.png", tmp_path / "fake")
    np.testing.assert_array_equal(load_image(path).pixels, pixels)


def test_a_grey_photograph_gets_a_grey_fake(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.jpg")
    with Image.open(save_like(pixels, tmp_path / "grey.jpg", tmp_path / "fake")) as fake:
        assert fake.mode == "L"


def test_fakes_of_another_autoencoder_are_not_taken_for_ones_own(data: Path, tmp_path: Path) -> None:
    photos = photographs(read_data(str(data)))
    for which in ("one", "other"):
        (tmp_path / which).mkdir()
    stub = SmallAutoencoder("nearest")
    list(synthesize(f"diffusers:{tmp_path / 'one'}", stub, photos, tmp_path / "out"))
    assert len(list(synthesize(f"diffusers:{tmp_path / 'one'}", stub, photos, tmp_path / "out"))) == len(photos)
    with pytest.raises(ValueError, match=r"other.*found those by.*one.*choose another --out"):
        list(synthesize(f"diffusers:{tmp_path / 'other'}", stub, photos, tmp_path / "out"))
    list(synthesize("own:nearest", stub, photos, tmp_path / "out", {"seed": 0}))
    with pytest.raises(ValueError, match="found those by"):
        list(synthesize("own:nearest", stub, photos, tmp_path / "out", {"seed": 1}))


def test_what_is_there_is_kept_and_what_cannot_be_read_is_reported(data: Path, tmp_path: Path) -> None:
    photos = photographs(read_data(str(data)))
    first, second = (SmallAutoencoder("bilinear", width=8) for _ in range(2))
    made = [result.path for result in synthesize("own:bilinear", first, photos, tmp_path / "out")]  # type: ignore[union-attr]
    before = [path.read_bytes() for path in made]
    made[2].unlink()
    photos[0].path.write_bytes(b"not an image")  # its fake is there already
    again = [result.path for result in synthesize("own:bilinear", second, photos, tmp_path / "out")]  # type: ignore[union-attr]
    assert again == made
    assert [path.read_bytes() == old for path, old in zip(made, before, strict=True)] == [True, True, False]
    made[0].unlink()
    failed = next(iter(synthesize("own:bilinear", second, photos, tmp_path / "out")))
    assert isinstance(failed, str)
    assert str(photos[0].path) in failed


def test_names_with_dots_and_brackets_and_names_that_repeat_have_a_fake_each(data: Path, tmp_path: Path) -> None:
    names = ["a.png", "a.b.png", "[1].png", "x/a.png"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)).save(tmp_path / name)
    photos = [photographs(read_data(str(data)))[0]._replace(path=tmp_path / name) for name in names]
    for _ in range(2):  # the second time all are there
        fakes = list(synthesize("own:nearest", SmallAutoencoder("nearest", width=8), photos, tmp_path / "out"))
        assert len({fake.path for fake in fakes}) == 4  # type: ignore[union-attr]
    assert len(list((tmp_path / "out").rglob("*.webp"))) == 4


def test_a_fake_is_of_the_photograph_it_is_listed_with(data: Path, tmp_path: Path) -> None:
    """Whatever another run on photographs of the same names left in the folder."""
    photos, autoencoder = photographs(read_data(str(data))), SmallAutoencoder("nearest", width=8)
    shutil.copytree(data, tmp_path / "more")
    others = photographs(read_data(str(tmp_path / "more")))
    for photo in others:
        Image.new("RGB", (40, 24), "teal").save(photo.path)
    for made in (others, photos):  # no manifest: as where the first was interrupted at its end
        for photo, fake in zip(made, synthesize("own:nearest", autoencoder, made, tmp_path / "out"), strict=True):
            assert isinstance(fake, Sample)
            assert load_image(fake.path).pixels.shape == load_image(photo.path).pixels.shape
            assert (load_image(photo.path).pixels.shape == (24, 40, 3)) == (made is others)


def test_a_manifest_of_other_fakes_is_not_lost(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, autoencoder, out = photographs(read_data(str(data))), SmallAutoencoder("nearest", width=8), tmp_path / "out"
    manifest = write_fakes(list(synthesize("own:nearest", autoencoder, photos[1:], out)), out)  # type: ignore[arg-type]
    before = manifest.read_text()
    with pytest.raises(ValueError, match=r"own-nearest of .*1\.jpg: choose another --out"):
        list(synthesize("own:nearest", autoencoder, photos[2:], out))
    with pytest.raises(ValueError, match="found 2 others"):
        list(synthesize("own:bilinear", autoencoder, photos, out))
    assert manifest.read_text() == before
    assert not (out / "own-bilinear").exists()

    monkeypatch.chdir(tmp_path)  # more photographs, their paths and the folder's spelt otherwise
    relative = photographs(read_data("data"))
    fakes = list(synthesize("own:nearest", autoencoder, relative, Path("out")))
    assert len(list(out.rglob("*.*p*g"))) + len(list(out.rglob("*.webp"))) == len(fakes) == 3


def test_a_photograph_with_a_long_name_has_a_fake(data: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{'猫' * 80}.png"
    Image.new("RGB", (8, 8)).save(path)
    photos = [photographs(read_data(str(data)))[0]._replace(path=path)]
    (fake,) = synthesize("own:nearest", SmallAutoencoder("nearest", width=8), photos, tmp_path / "out")
    assert isinstance(fake, Sample)
    assert fake.path.is_file()
    assert fake.path.name.startswith("猫" * 50 + "-")


def test_what_cannot_be_read_is_not_fitted_on(data: Path) -> None:
    photos = photographs(read_data(str(data)))
    photos[2].path.write_bytes(b"not an image")
    _, line = prepare("own:nearest", photos, steps=4)
    assert f"without 1 photographs that could not be read, the first {photos[2].path}: not an image" in line
    for photo in photos:
        photo.path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 3 photographs can be read; .*: the file is empty"):
        prepare("own:nearest", photos, steps=4)


def test_one_seed_gives_one_autoencoder(data: Path) -> None:
    photos = photographs(read_data(str(data)))
    one, other, third = (prepare("own:transposed", photos, steps=3, seed=seed)[0] for seed in (1, 1, 2))
    weights = [torch.cat([p.flatten() for p in a.parameters()]) for a in (one, other, third)]  # type: ignore[attr-defined]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_data_without_photographs_and_the_command(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="photographs"):
        photographs([sample for sample in read_data(str(data)) if sample.label == 1])
    with pytest.raises(SystemExit) as ended:
        command(str(data), autoencoder="own:nearest", out=tmp_path / "out", fit_steps=1)
    assert ended.value.code == 0
    assert "3 fakes, 0 photographs could not be read" in capsys.readouterr().out


def test_a_folder_that_does_not_fit_is_refused_before_anything_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        command(str(data), autoencoder="own:nearest", out=out, fit_steps=1)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr("apn.synthesize.fit", lambda *_: pytest.fail("trained first"))
    with pytest.raises(ValueError, match="others, the first by own-nearest of"):
        command(str(data), autoencoder="own:bilinear", out=out, fit_steps=1)
    with pytest.raises(ValueError, match=r"'seed': 1.* found those by .*'seed': 0.*: choose another --out"):
        command(str(data), autoencoder="own:nearest", out=out, fit_steps=1, seed=1)
    with alone(out / ".lock", out), pytest.raises(ValueError, match="out is being written by process"):
        command(str(data), autoencoder="own:nearest", out=out, fit_steps=1)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="expected a folder to write to, found a file"):
        command(str(data), autoencoder="own:nearest", out=tmp_path / "file", fit_steps=1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
