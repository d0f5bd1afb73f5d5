"""Layouts of other data sets: every fact from the names of folders, every misfit named, the same list every time."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data.trees import (
    CANONICAL,
    GENIMAGE_FOLDERS,
    make_diffusionforensics,
    make_folder,
    make_forensynths,
    make_genimage,
)

from apn.data.layouts import LAYOUTS, read_data
from apn.data.samples import Sample, read_samples, write_manifest
from apn.data.select import paired_reals
from apn.data.transforms import align
from apn.image import load_image


@pytest.fixture
def tree(genimage: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(genimage, tmp_path / "tree"))


def test_the_miniatures_classes_differ_by_the_pattern_even_when_aligned(tmp_path: Path) -> None:
    samples = read_data(f"genimage:{make_genimage(tmp_path, 2, generators=['ADM', 'glide'])}")
    grid = (-1.0) ** np.add.outer(np.arange(64), np.arange(64))[..., None]
    strength = [abs((align(load_image(s.path).pixels, 64) * grid).mean()) for s in samples]
    real, generated = ([v for v, s in zip(strength, samples, strict=True) if s.label == label] for label in (0, 1))
    assert max(real) < 2 < 8 < min(generated)


# What the layouts list ------------------------------------------------------------------------------------------------


def test_genimage_names_all_eight_with_their_own_photographs(genimage: Path) -> None:
    samples = read_data(f"genimage:{genimage}")
    assert Counter((s.subset, s.split, s.label) for s in samples) == {
        (name, split, label): 2 for name in CANONICAL for split in ("train", "val") for label in (0, 1)
    }
    assert all(s.generator == (s.subset if s.label else "") for s in samples)
    assert all(s.label == ("ai" in s.path.parts) for s in samples)
    assert all(s.path.is_file() for s in samples)
    assert len({s.path for s in samples}) == len(samples) == 64


def test_an_inner_folder_may_be_missing_or_be_the_generators(tmp_path: Path, genimage: Path) -> None:
    for (
        folder,
        inner,
    ) in GENIMAGE_FOLDERS.items():  # as smaller copies of GenImage come: root/imagenet_ai_0419_sdv4/train
        shutil.copytree(genimage / folder / inner, tmp_path / inner)
    flat, deep = (read_data(f"genimage:{root}") for root in (tmp_path, genimage))
    assert Counter((s.generator, s.split, s.path.name) for s in flat) == Counter(
        (s.generator, s.split, s.path.name) for s in deep
    )


def test_one_imagenet_photograph_is_one_split_group_wherever_it_lies(tree: Path) -> None:
    photo = next((tree / "ADM").rglob("nature/*.JPEG"))
    shutil.copy(photo, tree / "VQDM" / GENIMAGE_FOLDERS["VQDM"] / "val" / "nature" / photo.name)
    groups = Counter(s.split_group for s in read_data(f"genimage:{tree}"))
    assert groups.pop(photo.stem) == 2
    assert set(groups.values()) == {1}


def test_diffusionforensics_pairs_generators_with_the_photographs_of_their_scene(tmp_path: Path) -> None:
    samples = read_data(f"diffusionforensics:{make_diffusionforensics(tmp_path)}")
    assert Counter((s.split, s.scene, s.generator) for s in samples) == {
        ("train", "lsun_bedroom", ""): 2,
        ("train", "lsun_bedroom", "adm"): 2,
        ("train", "lsun_bedroom", "iddpm"): 2,
        ("train", "imagenet", ""): 2,
        ("train", "imagenet", "adm"): 2,
        ("test", "lsun_bedroom", ""): 2,
        ("test", "lsun_bedroom", "adm"): 2,
        ("test", "lsun_bedroom", "sdv2"): 2,
        ("test", "celebahq", ""): 2,
        ("test", "celebahq", "sdv2"): 2,
        ("test", "celebahq", "midjourney"): 2,
    }
    assert all(s.subset == s.scene and s.label == (s.generator != "") for s in samples)
    assert {s.scene for s in paired_reals(samples, "iddpm")} == {"lsun_bedroom"}
    assert {s.scene for s in paired_reals(samples, "sdv2")} == {"lsun_bedroom", "celebahq"}


def test_forensynths_with_and_without_classes(tmp_path: Path) -> None:
    samples = read_data(f"forensynths:{make_forensynths(tmp_path)}")
    assert Counter((s.subset, s.scene, s.label) for s in samples) == {
        (generator, scene, label): 2
        for generator, scene in [("progan", "airplane"), ("progan", "cat"), ("stylegan", "bedroom"), ("deepfake", "")]
        for label in (0, 1)
    }
    assert all(s.generator == (s.subset if s.label else "") and s.split == "" for s in samples)


@pytest.mark.parametrize("names", [("real", "generated"), ("0_real", "1_fake"), ("real", "fake")])
@pytest.mark.parametrize("prefix", ["folder:", "chameleon:", ""])
def test_a_folder_has_either_pair_of_names(tmp_path: Path, prefix: str, names: tuple[str, str]) -> None:
    samples = read_data(f"{prefix}{make_folder(tmp_path, 3, size=8, names=names)}")
    assert [s.label for s in samples] == [0, 0, 0, 1, 1, 1]
    assert [(s.source, s.generator, s.subset) for s in samples[2:4]] == [("phone", "", ""), ("", "toy", "")]
    assert samples[-1].split_group == f"{names[1]}/toy/002.png"
    assert paired_reals(samples, "toy") == samples[:3]


@pytest.mark.parametrize("prefix", ["folder:", "chameleon:", ""])
def test_images_beside_the_classes_are_refused(tmp_path: Path, prefix: str) -> None:
    make_folder(tmp_path, 1, size=8)
    for name in ("runs/one", ".cache", "__MACOSX"):
        (tmp_path / name).mkdir(parents=True)
    assert len(read_data(f"{prefix}{tmp_path}")) == 2
    shutil.copytree(tmp_path / "generated", tmp_path / "generated_more")
    with pytest.raises(
        ValueError, match=r"images in real/ and generated/ alone, found some in generated_more/ of .* too"
    ):
        read_data(f"{prefix}{tmp_path}")


def test_a_link_to_a_folder_above_brings_no_image_of_another_class(tmp_path: Path) -> None:
    make_folder(tmp_path, 2, size=8)
    before = read_data(tmp_path)
    (tmp_path / "real/all").symlink_to(tmp_path)
    (tmp_path / "real/again").symlink_to(tmp_path / "real")
    assert read_data(tmp_path) == before


def test_chameleon_has_both_classes(tmp_path: Path) -> None:
    make_folder(tmp_path, 1, size=8)
    shutil.rmtree(tmp_path / "generated")
    (tmp_path / "generated").mkdir()
    assert {sample.label for sample in read_data(f"folder:{tmp_path}")} == {0}
    with pytest.raises(ValueError, match=r"images of both classes in .*, found real ones only"):
        read_data(f"chameleon:{tmp_path}")


def test_folder_passes_a_manifest_by_and_manifest_wants_it(tmp_path: Path) -> None:
    make_folder(tmp_path, 2, size=8)
    with pytest.raises(ValueError, match=r"no manifest at .*expected a folder with manifest\.jsonl"):
        read_data(f"manifest:{tmp_path}")
    write_manifest(read_samples(tmp_path)[:1], tmp_path / "manifest.jsonl")
    assert len(read_data(f"folder:{tmp_path}")) == 4
    assert len(read_data(f"manifest:{tmp_path}")) == len(read_data(tmp_path)) == 1
    assert read_data(f"manifest:{tmp_path}/manifest.jsonl") == read_data(tmp_path)


def test_the_official_list(tmp_path: Path) -> None:
    rows = tmp_path / "test.jsonl"
    rows.write_text('{"img_path": "/x/a.png", "label": 1}\n{"img_path": "b.jpg", "label": 0}\n')
    assert read_data(f"official:{rows}") == [
        Sample(Path("/x/a.png"), 1, "", "", "", "/x/a.png"),
        Sample(tmp_path / "b.jpg", 0, "", "", "", "b.jpg"),
    ]
    rows.write_text('{"path": "/x/a.png", "label": 1}\n')
    with pytest.raises(ValueError, match="line 1: expected a path in column img_path, found columns path, label"):
        read_data(f"official:{rows}")
    with pytest.raises(ValueError, match=r"expected a \.jsonl file"):
        read_data(f"official:{tmp_path}")


def test_the_order_of_a_listing_decides_nothing(genimage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_data(f"genimage:{genimage}")
    scandir = os.scandir

    class Backwards(list):  # type: ignore[type-arg]
        def __enter__(self) -> "Backwards":
            return self

        def __exit__(self, *error: object) -> None: ...

        def __next__(self) -> object:
            if not self:
                raise StopIteration
            return self.pop(0)

        def __iter__(self) -> "Backwards":  # type: ignore[override]
            return self

        def close(self) -> None: ...

    def backwards(path: str) -> Backwards:
        with scandir(path) as entries:
            return Backwards(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", backwards)
    assert read_data(f"genimage:{genimage}") == expected


def test_links_are_followed_once_and_hidden_files_left_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", 2, size=8)
    (tmp_path / "data/real/.hidden").mkdir()
    shutil.copy(tmp_path / "data/real/phone/000.JPEG", tmp_path / "data/real/.hidden/a.jpg")
    shutil.copy(tmp_path / "data/real/phone/000.JPEG", tmp_path / "data/real/.b.jpg")
    (tmp_path / "data/real/notes.txt").write_text("not an image")
    (tmp_path / "data/real/again").symlink_to("..")
    (tmp_path / "data/real/z.jpg").symlink_to("phone/000.JPEG")
    below = [s.split_group for s in read_data(f"folder:{tmp_path / 'data'}") if s.label == 0]
    assert below[0] == "real/z.jpg"
    assert below.count("real/phone/000.JPEG") == 1
    assert not any("hidden" in name or "notes" in name or ".b" in name for name in below)


# Manifests keep all of it ---------------------------------------------------------------------------------------------


def test_a_manifest_keeps_split_subset_and_original(genimage: Path, tmp_path: Path) -> None:
    samples = read_data(f"genimage:{genimage}")
    samples[5] = samples[5]._replace(original=str(genimage / "photo.jpg"), label=1, generator="VAE", source="")
    manifest = tmp_path / "all.jsonl"
    write_manifest(samples, manifest)
    assert read_data(f"manifest:{manifest}") == samples
    row = json.loads(manifest.read_text().splitlines()[5])
    assert row["original"] == os.path.relpath(genimage / "photo.jpg", tmp_path)
    columns = {name for line in manifest.read_text().splitlines()[:5] for name in json.loads(line)}
    assert "original" not in columns
    assert {"split", "subset"} <= columns


def test_a_csv_manifest_has_the_new_columns_too(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label,split,subset,original\na.png,1,val,x,../photos/a.jpg\nb.png,0,,,\n")
    first, second = read_data(tmp_path / "m.csv")
    assert first[-3:] == ("val", "x", os.path.normpath(tmp_path / "../photos/a.jpg"))
    assert second[-3:] == ("", "", "")


# What does not fit ----------------------------------------------------------------------------------------------------


def test_genimage_says_what_does_not_fit(tree: Path) -> None:
    def message() -> str:
        with pytest.raises(ValueError, match="expected") as caught:
            read_data(f"genimage:{tree}")
        text, shape, rest = str(caught.value).partition(" (genimage: <generator>/<anything>/{train,val}/{ai,nature})")
        assert (bool(shape), rest) == (True, "")
        return text.replace(f"{tree}/", "")

    inner = tree / "glide" / "imagenet_glide"
    (inner / "val").rename(inner / "vall")
    assert message() == "expected train/ or val/ or test/ in glide/imagenet_glide, found train/, vall/"
    (inner / "vall").rename(inner / "val")
    (inner / "val/ai").rename(inner / "val/fake")
    assert message() == "expected nature/ and ai/ in glide/imagenet_glide/val, found fake/, nature/"
    (inner / "val/fake").rename(inner / "val/ai")
    for path in (inner / "val/ai").iterdir():
        path.rename(path.with_suffix(".txt"))
    assert message().startswith("expected generated images in glide/imagenet_glide/val/ai, found 000_glide_")
    shutil.rmtree(inner / "val/ai")
    assert message() == "expected nature/ and ai/ in glide/imagenet_glide/val, found nature/"
    shutil.rmtree(inner)
    assert message() == "expected <anything>/{train,val}/{ai,nature} in glide, found an empty folder"
    (tree / "glide").rename(tree / "glyde")
    expected = "no generator of GenImage is called as glyde: expected one of " + ", ".join(CANONICAL)
    assert message() == f"{expected}; did you mean GLIDE?"
    (tree / "glyde").rename(tree / "adm_again")
    assert "called as adm_again" in message()
    (tree / "adm_again").rename(tree / "imagenet_adm")
    assert message() == "expected one folder for ADM, found ADM and imagenet_adm"
    shutil.rmtree(tree / "imagenet_adm")
    assert {s.subset for s in read_data(f"genimage:{tree}")} == set(CANONICAL) - {"GLIDE"}


def test_the_other_layouts_say_what_does_not_fit(tmp_path: Path) -> None:
    root = make_diffusionforensics(tmp_path / "df", 1, size=8)
    (root / "test/celebahq").rename(root / "test/celeba")
    with pytest.raises(ValueError, match=r"expected lsun_bedroom/ or imagenet/ or celebahq/ in .*test, found celeba/"):
        read_data(f"diffusionforensics:{root}")
    shutil.rmtree(root / "test/celeba")
    (root / "train/imagenet/real").rename(root / "train/imagenet/reals")
    with pytest.raises(ValueError, match=r"expected real/ and a folder for each generator in .*found adm/, reals/"):
        read_data(f"diffusionforensics:{root}")
    with pytest.raises(ValueError, match=r"expected train/ or val/ or test/ in .*, found df/"):
        read_data(f"diffusionforensics:{tmp_path}")
    root = make_forensynths(tmp_path / "fs", 1, size=8)
    (root / "progan/cat/1_fake").rename(root / "progan/cat/1_fakes")
    with pytest.raises(ValueError, match=r"expected 0_real/ and 1_fake/ in .*progan/cat, found 0_real/, 1_fakes/"):
        read_data(f"forensynths:{root}")
    (root / "progan").rename(root / "train")
    with pytest.raises(ValueError, match="train is a split, not a generator"):
        read_data(f"forensynths:{root}")
    (root / "deepfake/0_real").rename(root / "0_real")
    expected = r"expected a folder with real/ and generated/ \(or 0_real/ and 1_fake/, or real/ and fake/\)"
    with pytest.raises(ValueError, match=expected):
        read_data(f"folder:{root}")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"cannot list the folder .*a\.txt: Not a directory"):
        read_data(f"genimage:{tmp_path / 'a.txt'}")


def test_both_pairs_of_names_at_once_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, 1, size=8)
    make_folder(tmp_path, 1, size=8, names=("0_real", "1_fake"))
    with pytest.raises(ValueError, match="found 0_real/, 1_fake/, generated/, real/"):
        read_data(tmp_path)


def test_every_layout_is_in_the_docs() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for name in LAYOUTS:
        assert f"`{name}:" in docs
