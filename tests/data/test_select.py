"""Specs, filters and draws, and the names of generators that they go by."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data.trees import CANONICAL, GENIMAGE_FOLDERS, make_folder
from hypothesis import given
from hypothesis import strategies as st

from apn.data.layouts import parse_spec, read_data
from apn.data.names import GENIMAGE, genimage_generator
from apn.data.samples import Sample
from apn.data.select import Filters, draw, paired_reals, select


def test_a_spec_is_a_layout_a_path_and_filters() -> None:
    assert parse_spec("genimage:/data/GenImage,split=train,generator=ADM,generator=SD v1.4") == (
        "genimage",
        Path("/data/GenImage"),
        Filters("train", ("ADM", "SD v1.4"), ()),
    )
    assert parse_spec("photos,scene=cat") == (None, Path("photos"), Filters(scenes=("cat",)))
    assert parse_spec(r"C:\photos") == (None, Path(r"C:\photos"), Filters())
    assert parse_spec(r"folder:C:\photos") == ("folder", Path(r"C:\photos"), Filters())
    assert parse_spec("./a:b/c") == (None, Path("./a:b/c"), Filters())


def test_a_path_that_exists_is_a_path_whatever_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("genimage:old", "run,split=val", "nolayout:x"):
        make_folder(Path(name), 1, size=8)
        assert parse_spec(name) == (None, Path(name), Filters())
        assert len(read_data(name)) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("genimag:/x", r"unknown layout 'genimag': expected genimage, .*official; did you mean genimage\?"),
        ("coco:/x", "unknown layout 'coco': expected genimage, diffusionforensics, forensynths, chameleon, folder"),
        ("GenImage:/x", "did you mean genimage"),
        ("genimage:/nowhere", "/nowhere does not exist"),
        ("/nowhere,spilt=train", "expected split=, generator= or scene= .* found 'spilt=train'"),
        ("/nowhere,split=train,split=val", "found 'split=val'"),
        ("/nowhere,generator=", "found 'generator='"),
    ],
)
def test_bad_specs_are_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_data(spec)


def test_filters_of_a_spec_and_select_agree(genimage: Path) -> None:
    everything = read_data(f"genimage:{genimage}")
    few = read_data(f"genimage:{genimage},split=val,generator=SD v1.4,generator=ADM")
    assert few == select(everything, split="val", generators=["ADM", "stable_diffusion_v_1_4"])
    assert Counter((s.subset, s.split, s.label) for s in few) == {
        (name, "val", label): 2 for name in ("ADM", "SD v1.4") for label in (0, 1)
    }
    assert select(everything) == everything
    assert {s.split for s in read_data(f"genimage:{genimage}", default_split="train")} == {"train"}
    assert {s.split for s in read_data(f"genimage:{genimage},split=val", default_split="train")} == {"val"}
    assert read_data(f"genimage:{genimage}", default_split="test") == everything


def test_all_photographs_serve_a_generator_that_the_data_pair_with_none() -> None:
    made = [Sample(Path("g"), 1, "A", "", "", "g"), Sample(Path("h"), 1, "B", "", "", "h", subset="x")]
    samples = [*made, *(Sample(Path(name), 0, "", "", "", name, subset=name) for name in ("x", "y"))]
    assert [str(s.path) for s in select(samples, generators=["A"])] == ["g", "x", "y"]
    assert paired_reals(samples, "A") == samples[2:]
    assert [str(s.path) for s in select(samples, generators=["B"])] == ["h", "x"]


def test_photographs_of_no_subset_serve_every_generator() -> None:
    samples = [
        Sample(Path("r0"), 0, "", "", "", "r0"),
        Sample(Path("r1"), 0, "", "", "", "r1", subset="a"),
        Sample(Path("r2"), 0, "", "", "", "r2", subset="b"),
        Sample(Path("g1"), 1, "A", "cat", "", "g1", subset="a"),
        Sample(Path("g2"), 1, "B", "dog", "", "g2", subset="b"),
        Sample(Path("g3"), 1, "", "dog", "", "g3", subset="b"),
    ]
    assert [str(s.path) for s in select(samples, generators=["A"])] == ["r0", "r1", "g1"]
    assert [str(s.path) for s in paired_reals(samples, "B")] == ["r0", "r2"]
    assert [str(s.path) for s in select(samples, scenes=["dog"])] == ["g2", "g3"]


def test_a_draw_keeps_the_order_and_every_sample_has_the_same_chance() -> None:
    samples = [Sample(Path(f"{i:02}"), 0, "", "", "", "") for i in range(20)]
    draws = [draw(samples, 5, seed) for seed in range(800)]
    assert draws[3] == draw(samples, 5, 3)
    assert all(len(set(drawn)) == 5 and drawn == sorted(drawn) for drawn in draws)
    counts = Counter(sample for drawn in draws for sample in drawn)
    assert all(abs(counts[sample] - 200) < 5 * np.sqrt(800 * 0.25 * 0.75) for sample in samples)
    assert draw(samples, None) == draw(samples, 20) == draw(samples, 99) == samples


def test_a_name_that_no_sample_has_lists_those_there_are(genimage: Path) -> None:
    samples = read_data(f"genimage:{genimage}")
    with pytest.raises(ValueError, match="no split 'test' in the data: expected one of train, val"):
        select(samples, split="test")
    with pytest.raises(ValueError, match=r"no generator 'Midjourny' .* expected one of ADM, BigGAN.*mean Midjourney\?"):
        select(samples, generators=["Midjourny", "ADM"])
    with pytest.raises(ValueError, match="no scene 'cat' in the data: no sample says its scene"):
        select(samples, scenes=["cat"])
    with pytest.raises(ValueError, match="no generator ''"):
        select(samples, generators=[""])


@given(st.sampled_from(CANONICAL), st.sampled_from(["", "imagenet_", "imagenet_ai_0419_"]), st.booleans())
def test_every_spelling_of_a_generator_is_one_name(name: str, prefix: str, upper: bool) -> None:
    spelled = prefix + (name.upper() if upper else name.lower()).replace(" ", "_").replace(".", "_")
    assert genimage_generator(spelled) == name
    assert genimage_generator(spelled + "x") is None


def test_the_folders_in_the_wild_are_the_eight() -> None:
    assert list(GENIMAGE) == CANONICAL
    assert [genimage_generator(folder) for folder in GENIMAGE_FOLDERS] == CANONICAL
    assert [genimage_generator(inner) for inner in GENIMAGE_FOLDERS.values()] == CANONICAL
