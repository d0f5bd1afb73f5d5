"""What is listed, and what the worker reads of it."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scanning import picture, plan_of

from apn.image import ImageError, find_images
from apn.scan.entries import File, Rows, Tar, decode, encode
from apn.scan.files import open_address
from apn.scan.images import Image, images_in
from apn.scan.sample import draw_sample
from apn.scan.sources import find_sources, list_entries
from apn.scan.tally import kind_of

RED = picture(255)


def listed(*sources: Path | str, column: str | None = None):
    return list(list_entries(find_sources(map(str, sources)), column))


def read(*sources: Path | str, column: str | None = None) -> list[Image]:
    return list(images_in(listed(*sources, column=column)))


def loads(image: Image) -> bool:
    return image.load().pixels[0, 0, 0] == 255


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_links(path: Path, mode: str = "w") -> Path:
    """A tar of a file, hard and symbolic links to it from before and after it, and links to nothing."""
    hard, symbolic = tarfile.LNKTYPE, tarfile.SYMTYPE
    links = [
        ("first.png", "a/2.png", symbolic),
        ("a/hard.png", "./a/2.png", hard),
        ("b/up.png", "../a/2.png", symbolic),
    ]
    links += [
        ("b/over.png", "up.png", symbolic),
        ("packed.png", "/a/2.png", symbolic),
        ("a/store.png", "key", symbolic),
    ]
    links += [("gone.png", "../1.png", symbolic), ("round.png", "round.png", symbolic), ("b/none.txt", "x", symbolic)]
    with tarfile.open(path, mode) as tar:
        for number, (name, target, kind) in enumerate(links):
            if number == 1:
                for file, content in (("./a/2.png", RED), ("a/key", picture(7))):
                    info = tarfile.TarInfo(file)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
    return path


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty again afterwards."""
    file_system = fsspec.filesystem("memory")
    yield file_system
    file_system.store.clear()
    file_system.pseudo_dirs[:] = [""]


def test_a_folder_is_its_images_by_name_files_before_folders(tmp_path):
    for name in ("b.jpg", "a/d.PNG", "a/c/e.webp", "a.gif", "notes.txt", ".hidden.jpg", ".git/f.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(RED)
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    assert listed(tmp_path) == [File(str(tmp_path / name)) for name in ("a.gif", "b.jpg", "a/d.PNG", "a/c/e.webp")]


def test_a_link_that_leads_round_in_a_circle_costs_nothing_else_in_its_folder(tmp_path):
    """What `apn detect` lists: a link named as an image is one that cannot be read, another is nothing."""
    for name in ("0.jpg", "1.jpg", "sub/0.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(RED)
    for name in ("self", "self.jpg"):
        (tmp_path / name).symlink_to(name)
    found = [entry.path for entry in listed(tmp_path)]
    assert found == [f"{tmp_path}/{name}" for name in ("0.jpg", "1.jpg", "self.jpg", "sub/0.jpg")]
    assert sorted(found) == sorted(map(str, find_images([tmp_path])))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_a_row(tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    (image,) = read(tmp_path)
    with pytest.raises(ImageError, match="no permission to list this folder"):
        image.load()


def test_lists_and_tables_of_paths_are_relative_to_themselves_and_may_name_addresses_and_tars(tmp_path):
    (tmp_path / "far").mkdir()
    names = ["a b.jpg", "/elsewhere/c.jpg", "s3://bucket/d.jpg", "e.tar"]
    expected = [File(f"{tmp_path}/far/a b.jpg"), File("/elsewhere/c.jpg"), File("s3://bucket/d.jpg")]
    expected.append(Tar(f"{tmp_path}/far/e.tar"))
    (tmp_path / "far" / "list.txt").write_text("\r\n".join(names) + "\n\n")
    (tmp_path / "far" / "list.csv").write_text("id,url\n" + "".join(f"1,{name}\n" for name in names))
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "path": names}), tmp_path / "far" / "list.parquet")
    words = pa.table({"where": pa.array(names).dictionary_encode(), "path": [1, 2, 3, 4]})
    pq.write_table(words, tmp_path / "far" / "words.parquet")
    for name in ("list.txt", "list.csv", "list.parquet"):
        assert listed(tmp_path / "far" / name) == expected
    assert listed(tmp_path / "far" / "words.parquet", column="where") == expected


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_cell_without_a_path_is_a_row_of_the_table_and_not_its_folder(tmp_path, name):
    (tmp_path / "t.csv").write_text("id,url\n0,a.jpg\n1,\n2\n3,d.jpg\n")
    pq.write_table(pa.table({"url": ["a.jpg", None, "", "d.jpg"]}), tmp_path / "t.parquet")
    entries = listed(tmp_path / name)
    assert list(decode(encode(entries))) == entries
    images = list(images_in(entries))
    assert [one.name for one in images] == [
        f"{tmp_path}/a.jpg",
        f"{tmp_path}/{name}#1",
        f"{tmp_path}/{name}#2",
        f"{tmp_path}/d.jpg",
    ]
    assert [one.error for one in images] == [None, *["expected a path, found an empty cell"] * 2, None]
    assert draw_sample(entries, 4, seed=0).population == 4


def test_the_newer_kinds_of_text_and_bytes_of_arrow_are_read_too(tmp_path):
    pq.write_table(pa.table({"path": pa.array(["a.jpg"], pa.string_view())}), tmp_path / "paths.parquet")
    pq.write_table(pa.table({"image": pa.array([RED], pa.binary_view())}), tmp_path / "images.parquet")
    assert listed(tmp_path / "paths.parquet") == [File(f"{tmp_path}/a.jpg")]
    (image,) = read(tmp_path / "images.parquet")
    assert loads(image)


def test_names_of_any_bytes_come_through_a_list(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.png")
    path.write_bytes(RED)
    (tmp_path / "list.txt").write_bytes(os.fsencode(path) + b"\n")
    (image,) = read(tmp_path / "list.txt")
    assert loads(image)


def test_the_mark_that_windows_puts_before_a_list_or_table_is_no_part_of_it(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\n\ufeffb.jpg\n", "utf-8-sig")
    (tmp_path / "table.csv").write_text("path,id\na.jpg,1\n", "utf-8-sig")
    assert listed(tmp_path / "list.txt") == [File(f"{tmp_path}/a.jpg"), File(f"{tmp_path}/\ufeffb.jpg")]
    assert listed(tmp_path / "table.csv") == [File(f"{tmp_path}/a.jpg")]


@pytest.mark.parametrize(
    ("name", "content"), [("t.parquet", b"not a table"), ("t.parquet", b""), ("t.csv", b"path\n" + b"x" * 200_000)]
)
def test_a_damaged_table_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/{name} cannot be read: "):
        listed(tmp_path / name)


def test_a_table_without_rows_is_no_image(tmp_path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "t.parquet")
    assert listed(tmp_path / "t.parquet") == []
    assert list(images_in([Rows(f"{tmp_path}/t.parquet", "image", 0, 0)])) == [], "as listed by an earlier version"


def test_rows_that_have_gone_since_the_table_was_listed_are_rows_with_the_reason(tmp_path):
    pq.write_table(pa.table({"image": [RED] * 2}), tmp_path / "t.parquet")
    images = list(images_in([Rows(f"{tmp_path}/t.parquet", "image", 1, 3)]))
    assert [one.name for one in images] == [f"{tmp_path}/t.parquet#{row}" for row in (1, 2, 3)]
    assert [one.error is None for one in images] == [True, False, False]
    assert "t.parquet has no such row any more" in images[1].error


@pytest.mark.parametrize("struct", [False, True])
def test_a_table_of_bytes_is_read_row_by_row_over_its_row_groups(tmp_path, struct):
    contents = [picture(red) for red in range(50)] + [None]
    column = [{"bytes": one, "path": None} for one in contents] if struct else contents
    pq.write_table(pa.table({"label": [0] * 51, "image": column}), tmp_path / "t.parquet", row_group_size=20)
    (entry,) = listed(tmp_path / "t.parquet")
    assert entry == Rows(str(tmp_path / "t.parquet"), "image.bytes" if struct else "image", 0, 51)
    for first, count in ((0, 50), (19, 2), (20, 20), (5, 40), (49, 1)):
        images = list(images_in([entry._replace(first=first, rows=count)]))
        assert [one.name for one in images] == [f"{tmp_path}/t.parquet#{row}" for row in range(first, first + count)]
        assert [one.load().pixels[0, 0, 0] for one in images] == list(range(first, first + count))
    (empty,) = images_in([entry._replace(first=50, rows=1)])
    assert empty.error == "expected an image, found an empty cell"


@pytest.mark.parametrize(("first", "most"), [(0, 0.1), (500, 0.6)])
def test_of_a_table_in_one_row_group_no_more_is_read_and_held_than_up_to_the_rows(tmp_path, monkeypatch, first, most):
    path, rows = tmp_path / "t.parquet", 1000
    noise = np.random.default_rng(0)
    pq.write_table(pa.table({"image": [noise.bytes(50_000) for _ in range(rows)]}), path, write_batch_size=8)
    assert pq.read_metadata(path).num_row_groups == 1
    reads: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            reads.append(size)
            return super().read(size)

    local, _ = open_address(str(path))
    monkeypatch.setattr(local, "open", lambda path, mode: Counted(path, mode))
    assert [image.error for image in images_in([Rows(str(path), "image", first, 16)])] == [None] * 16
    assert sum(reads) < most * path.stat().st_size
    assert max(reads) < 3 << 20


def test_every_row_of_a_table_that_is_gone_is_a_row(tmp_path):
    images = list(images_in([Rows(f"{tmp_path}/gone.parquet", "image", 3, 2)]))
    assert [one.name for one in images] == [f"{tmp_path}/gone.parquet#3", f"{tmp_path}/gone.parquet#4"]
    assert all("cannot be read" in (one.error or "") for one in images)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.TGZ", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")],
)
def test_the_images_of_a_tar(tmp_path, name, mode):
    members = {"0.png": RED, "0.json": b"{}", "x/1.jpg": picture(255, "JPEG"), "x/.2.png": RED, "x/3.cls": b"1"}
    tar = write_tar(tmp_path / name, members, mode)
    images = read(tar)
    assert [one.name for one in images] == [f"{tar}#0.png", f"{tar}#x/1.jpg"]
    assert loads(images[0])


def test_a_tar_that_ends_early_or_holds_no_image_is_a_row_with_the_reason(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {f"{n}.png": RED for n in range(9)})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:3000])
    images = read(tmp_path / "cut.tar")
    assert all(loads(image) for image in images[:-1])
    assert images[-1].name == str(tmp_path / "cut.tar")
    assert f"(after {len(images) - 1} images)" in (images[-1].error or "")
    (none,) = read(write_tar(tmp_path / "none.tar", {"a.txt": b""}))
    assert none.error == "expected image files in this tar, found none"


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_links_in_a_tar_are_the_images_that_they_lead_to_there_or_rows_with_the_reason(tmp_path, name, mode):
    tar = write_links(tmp_path / name, mode)
    images = read(tar)
    pixels = {one.name.partition("#")[2]: int(one.load().pixels[0, 0, 0]) for one in images if one.error is None}
    same = ("./a/2.png", "first.png", "a/hard.png", "b/up.png", "b/over.png", "packed.png")
    assert pixels == dict.fromkeys(same, 255) | {"a/store.png": 7}
    assert [(one.name, one.error) for one in images if one.error is not None] == [
        (f"{tar}#gone.png", "a link to no file of this tar: it leads to ../1.png"),
        (f"{tar}#round.png", "a link to no file of this tar: it leads to round.png"),
    ]
    assert {kind_of(str(one.error)) for one in images[-2:]} == {"a link to no file of this tar"}


def test_what_follows_a_damaged_header_or_is_cut_off_at_one_is_not_lost_in_silence(tmp_path):
    """There tarfile sees the end of the tar."""
    whole = write_tar(tmp_path / "whole.tar", {f"{n}.png": RED for n in range(9)}).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        third = tar.getmembers()[2].offset
    damaged = whole[:third] + b"?" + whole[third + 1 :]
    cut = "no mark of its end, as if it was cut"
    found = {f"damaged at byte {third}: bad checksum": damaged, cut: whole[:third], f"{cut} ": whole[: third + 99]}
    for reason, content in found.items():
        (tmp_path / "a.tar").write_bytes(content)
        *images, last = read(tmp_path / "a.tar")
        assert [one.name for one in images] == [f"{tmp_path}/a.tar#{n}.png" for n in (0, 1)]
        assert last.error == f"{tmp_path}/a.tar cannot be read: {reason.strip()} (after 2 images)"
        with pytest.raises(ValueError, match=f"to draw a sample from, found {reason.strip()}"):
            draw_sample(listed(tmp_path / "a.tar"), 1, seed=0)


def test_links_in_a_tar_are_drawn_into_a_sample(tmp_path):
    tar = write_links(tmp_path / "a.tar")
    sample = draw_sample(listed(tar), 99, seed=0)
    assert set(decode(encode(sample.entries))) == set(sample.entries)
    drawn = {one.name: one.error or int(one.load().pixels[0, 0, 0]) for one in images_in(sample.entries)}
    assert drawn == {one.name: one.error or int(one.load().pixels[0, 0, 0]) for one in read(tar)}


def test_addresses_of_other_file_systems(memory, tmp_path):
    for name in ("data/b/1.png", "data/2.png", "data/.3.png", "data/4.txt"):
        memory.pipe_file(f"/{name}", RED)
    memory.pipe_file("/data/list.txt", b"2.png\ngone.png\n")
    table = io.BytesIO()
    pq.write_table(pa.table({"image": [RED]}), table)
    memory.pipe_file("/t.parquet", table.getvalue())
    memory.pipe_file("/a.tar", write_tar(tmp_path / "a.tar", {"1.png": RED}).read_bytes())
    images = read("memory://data", "memory://t.parquet", "memory://a.tar")
    names = ["memory:///data/2.png", "memory:///data/b/1.png", "memory:///t.parquet#0", "memory:///a.tar#1.png"]
    assert [one.name.replace(":///", "://") for one in images] == [one.replace(":///", "://") for one in names]
    assert all(map(loads, images))
    found, gone = read("memory://data/list.txt")
    assert loads(found)
    with pytest.raises(ImageError, match="no such file"):
        gone.load()


def test_a_file_url_is_a_path_of_this_machine(tmp_path):
    (tmp_path / "a.png").write_bytes(RED)
    assert listed(f"file://{tmp_path}") == [File(str(tmp_path / "a.png"))]
    (tmp_path / "list.txt").write_text(f"file://{tmp_path}/a.png\n")
    (image,) = read(tmp_path / "list.txt")
    assert loads(image)


def test_patterns_take_what_they_match(tmp_path):
    for name in ("train-0.tar", "train-1.tar", "test-0.tar"):
        write_tar(tmp_path / name, {"1.png": RED})
    assert listed(f"{tmp_path}/train-*.tar") == [Tar(f"{tmp_path}/train-{n}.tar") for n in (0, 1)]


@pytest.mark.parametrize("content", ["path", "bytes", "callable"])
def test_sha256_is_of_the_file(tmp_path, content):
    (tmp_path / "a.png").write_bytes(RED)
    source = {"path": str(tmp_path / "a.png"), "bytes": RED, "callable": lambda: RED}[content]
    image = Image("a", source)
    image.load()
    assert image.sha256 is None
    image.load(digest=True)
    assert image.sha256 == hashlib.sha256(RED).hexdigest()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no source '.*nowhere': expected a folder, an image, a list"),
        ("no*where", "no source matches"),
        ("nothing://bucket/a", "expected a path, or an address whose package is installed"),
        ("zip://*.jpg::a.zip", "found a chain of addresses, which only lists may hold"),
    ],
)
def test_a_source_that_is_not_there_says_what_was_expected(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        find_sources([source if "://" in source else str(tmp_path / source)])


def test_an_empty_source_is_not_the_folder_we_are_in(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(RED)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no source '': expected a folder, an image, .* found an empty name"):
        find_sources([""])


def test_sources_that_overlap_are_refused(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    assert len(find_sources([str(tmp_path / "a"), str(tmp_path / "ab")])) == 2
    for other in (tmp_path / "a" / "b", tmp_path / "a"):
        with pytest.raises(ValueError, match="expected sources that do not overlap"):
            find_sources([str(tmp_path / "a"), str(other)])


def test_a_table_without_a_known_column_says_which_it_has(tmp_path):
    pq.write_table(pa.table({"x": [1], "path": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t.parquet: expected column 'z', found x, path"):
        listed(tmp_path / "t.parquet", column="z")
    with pytest.raises(ValueError, match=r"column 'x': expected paths \(string\) or images .* found int64"):
        listed(tmp_path / "t.parquet", column="x")
    (tmp_path / "t.csv").write_text("u,v\n1,2\n")
    with pytest.raises(ValueError, match=r"t.csv: expected a column of images or paths, named by --column, found u, v"):
        listed(tmp_path / "t.csv")


def test_a_plan_travels_as_its_address(tmp_path):
    import pickle

    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    assert pickle.loads(pickle.dumps(plan)).store.location == str(tmp_path / "out")
