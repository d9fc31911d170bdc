"""Data sets of every format: the images, names and labels that were put in, and what is said where they are otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from made_images import encoded, folder_of_classes, picture, write
from untested import require

from polymae.data.datasets import open_dataset
from polymae.data.folders import images_below
from polymae.files.errors import Problem


def contents(dataset):
    return [(dataset.name(i), dataset.label(i), dataset.read(i)) for i in range(len(dataset))]


def messy(path: Path) -> Path:
    """An ImageFolder with what people have in it: nested folders, capitals, other files, names that sort in odd ways."""
    names = ["b/2.JPG", "b/10.jpg", "b/a/z.png", "b/a-b/y.png", "B/1.webp", "b/.hidden.png", "a b/x.tiff", "é/1.bmp"]
    for number, name in enumerate(names):
        write(path / name, number) if name[-3:] != "iff" else picture(number).save(_made(path / name))
    (path / "b" / "notes.txt").write_text("no image")
    (path / "readme.md").write_text("no class")
    return path


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_folder_of_classes_is_torchvisions(tmp_path: Path) -> None:
    require("torch")
    from torchvision.datasets import ImageFolder

    expected, found = ImageFolder(str(messy(tmp_path))), open_dataset(tmp_path)
    assert found.format == "folder"
    assert list(found.classes) == expected.classes
    assert [(str(tmp_path / found.name(i)), found.label(i)) for i in range(len(found))] == expected.samples
    for index in range(len(found)):
        assert np.array_equal(np.asarray(found.image(index)), np.asarray(expected[index][0]))
    assert images_below(tmp_path / "b") == [
        name.removeprefix("b/") for name in map(found.name, range(len(found))) if name.startswith("b/")
    ]


def test_folders_that_are_links_are_followed_and_loops_refused(tmp_path: Path) -> None:
    folder_of_classes(tmp_path / "real")
    (tmp_path / "set").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "real" / name)
    assert len(open_dataset(tmp_path / "set", "folder")) == 10
    (tmp_path / "real" / "cat" / "loop").symlink_to(tmp_path / "real")
    with pytest.raises(Problem, match="is a link to a folder that it is in"):
        open_dataset(tmp_path / "real")


def test_what_programs_leave_is_no_class(tmp_path: Path) -> None:
    folder_of_classes(tmp_path)
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / name).mkdir()
    assert open_dataset(tmp_path).classes == ("cat", "dog", "eel")
    (tmp_path / "fox").mkdir()
    with pytest.raises(Problem, match="no image is in fox"):
        open_dataset(tmp_path)


def test_a_tree_has_all_images_without_labels(tmp_path: Path) -> None:
    folder_of_classes(tmp_path)
    write(tmp_path / "top.jpg")
    for format in (None, "tree", "flat"):
        found = open_dataset(tmp_path, format)
        assert (found.format, len(found), found.classes) == ("tree", 16, ())
        assert {found.label(i) for i in range(16)} == {None}
        assert found.name(0) == "top.jpg"
    only = open_dataset(folder_of_classes(tmp_path / "one", classes=("all",)))
    assert (only.format, len(only)) == ("tree", 5)


@pytest.mark.parametrize(
    ("suffix", "text", "labels", "classes"),
    [
        (".csv", "path,label\na b.png,1\nin/c.png,0\n", [1, 0], ("0", "1")),
        (".csv", '\ufeffimage, label\n"a b.png", dog\n"in/c.png", cat\n', [1, 0], ("cat", "dog")),
        (".txt", "# list\na b.png 2\n\nin/c.png 0\n", [2, 0], ("0", "1", "2")),
        (".txt", "a b.png\nin/c.png\n", [None, None], ()),
        (".tsv", "a b.png\t0.5\nin/c.png\t1.0\n", [0, 1], ("0.5", "1.0")),
        (".lst", "a b.png,7\r\nFOLDER/in/c.png,7\r\n", [7, 7], tuple(map(str, range(8)))),
    ],
)
def test_a_list_names_images_and_labels(suffix: str, text: str, labels, classes, tmp_path: Path) -> None:
    for number, name in enumerate(("a b.png", "in/c.png")):
        write(tmp_path / name, number)
    path = tmp_path / f"list{suffix}"
    path.write_text(text.replace("FOLDER", str(tmp_path)))
    found = open_dataset(path)
    assert (found.format, found.classes) == ("list", classes)
    assert [found.label(i) for i in range(2)] == labels
    assert [found.read(i) for i in range(2)] == [
        (tmp_path / "a b.png").read_bytes(),
        (tmp_path / "in/c.png").read_bytes(),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no images"),
        ("path,label\n", "lists no images"),
        ("a.png,0\nb.png\n", "line 2 has no label"),
        ("a.png,0\nb.png,dog\n", "numbers and others: 'dog'"),
        ("a.png,0\nnone.png,1\n", "line 2 names 'none.png'"),
        ("a.png,0,1\n", "line 1 is"),
        (",0\n", "line 1 is"),
        ("a.png,-1\nb.png,0\n", "'-1' beside 0"),
    ],
)
def test_a_wrong_list_is_told_by_its_line(text: str, said: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / name)
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(Problem, match=said):
        open_dataset(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Problem, match="not text in UTF-8"):
        open_dataset(tmp_path / "list.csv")


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_arrays_give_their_pixels(channels: tuple[int, ...], tmp_path: Path) -> None:
    imgs = np.random.default_rng(0).integers(0, 256, (6, 8, 9, *channels), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", imgs=imgs, labels=[0, 1, 2, 0, 1, 2], classes=["a", "b", "c"])
    found = open_dataset(tmp_path / "set.npz")
    assert (found.format, found.classes, found.label(4)) == ("npz", ("a", "b", "c"), 1)
    count = 3 if channels == (3,) else 1
    pixels = np.asarray(found.image(3, count))
    assert np.array_equal(pixels.reshape(imgs[3].shape), imgs[3])
    from polymae.data.images import decode_bytes

    assert np.array_equal(np.asarray(decode_bytes(found.read(3), "x", count)), pixels)
    before = found.fingerprint()
    imgs[3, 2, 2] ^= 1
    np.savez(tmp_path / "set.npz", imgs=imgs, labels=[0, 1, 2, 0, 1, 2], classes=["a", "b", "c"])
    assert open_dataset(tmp_path / "set.npz").fingerprint() != before


def test_keras_mnist_has_two_parts(tmp_path: Path) -> None:
    imgs = np.zeros((5, 4, 4), np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=imgs, y_train=np.arange(5), x_test=imgs[:2], y_test=np.array([1, 0]))
    assert len(open_dataset(tmp_path / "mnist.npz")) == 5
    assert len(open_dataset(tmp_path / "mnist.npz", split="val")) == 2


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros(3)}, "holds x"),
        ({"imgs": np.zeros((3, 4, 4))}, "uint8"),
        ({"imgs": np.zeros((3, 4), np.uint8)}, "uint8"),
        ({"imgs": np.zeros((0, 4, 4), np.uint8)}, "holds no image"),
        ({"imgs": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(3)}, "whole numbers"),
        ({"imgs": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(2, int)}, r"\[3\]"),
        (
            {"imgs": np.zeros((3, 4, 4), np.uint8), "labels": np.arange(3), "classes": np.array(["a"])},
            "names 1 classes",
        ),
        ({"imgs": np.array([None])}, "not a readable"),
    ],
)
def test_arrays_that_are_no_images_are_told(arrays, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(Problem, match=said):
        open_dataset(tmp_path / "set.npz")


def test_the_fingerprint_sees_a_changed_folder(tmp_path: Path) -> None:
    folder_of_classes(tmp_path)
    first = open_dataset(tmp_path).fingerprint()
    assert open_dataset(tmp_path).fingerprint() == first
    seen = {first}

    def changed() -> None:
        seen.add(open_dataset(tmp_path).fingerprint())

    write(tmp_path / "cat" / "new.png")
    changed()
    (tmp_path / "cat" / "new.png").rename(tmp_path / "cat" / "newer.png")
    changed()
    (tmp_path / "cat" / "newer.png").write_bytes(b"another size")
    changed()
    (tmp_path / "cat" / "newer.png").rename(tmp_path / "dog" / "newer.png")
    changed()
    (tmp_path / "eel").rename(tmp_path / "fox")
    changed()
    assert len(seen) == 6
    dataset = open_dataset(tmp_path)
    (tmp_path / "dog" / "newer.png").unlink()
    with pytest.raises(Problem, match="dog/newer.png"):
        dataset.fingerprint()
    with pytest.raises(Problem, match="dog/newer.png"):
        dataset.read(next(i for i in range(len(dataset)) if dataset.name(i) == "dog/newer.png"))


def test_a_split_is_found(tmp_path: Path) -> None:
    folder_of_classes(tmp_path / "a" / "train", 2)
    folder_of_classes(tmp_path / "a" / "val", 1)
    assert len(open_dataset(tmp_path / "a")) == 6
    assert len(open_dataset(tmp_path / "a", split="val")) == 3
    (tmp_path / "b").mkdir()
    for name, count in (("train", 4), ("validation", 2)):
        np.savez(tmp_path / "b" / f"{name}.npz", imgs=np.zeros((count, 4, 4), np.uint8))
    assert len(open_dataset(tmp_path / "b", split="val")) == 2
    assert len(open_dataset(tmp_path / "b" / "train.npz", split="val")) == 4  # a file is what is meant
    folder_of_classes(tmp_path / "c", 1)
    (tmp_path / "c" / "training-notes.txt").write_text("none of a split")
    assert len(open_dataset(tmp_path / "c")) == 3
    for path, split, said in (
        ("c", "val", "train/ and val/ are missing in it, and it holds 3 folders, 1 text file"),
        ("a/train", "val", "train/ and val/ are missing"),
        ("c", "trian", "must be one of train, val"),
    ):
        with pytest.raises(Problem, match=said):
            open_dataset(tmp_path / path, split=split)
    folder_of_classes(tmp_path / "d" / "val")
    with pytest.raises(Problem, match="has no part train .*it has .*d/val"):
        open_dataset(tmp_path / "d")


def test_imagenets_flat_validation_set_is_recognised(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "val" / f"ILSVRC2012_val_0000000{number}.JPEG", number)
    folder_of_classes(tmp_path / "train")
    assert len(open_dataset(tmp_path, split="val")) == 3
    for format in (None, "folder"):
        with pytest.raises(Problem, match=r"ImageNet's validation set.*ILSVRC2012_validation_ground_truth") as told:
            open_dataset(tmp_path, format, "val", labelled=True)
    assert "(--data-format flat)" in str(told.value)
    with pytest.raises(Problem, match="ILSVRC2012_val_00000000.JPEG,0"):
        open_dataset(tmp_path, split="val", labelled=True)
    assert open_dataset(tmp_path, labelled=True).classes == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("files", "format", "said"),
    [
        (
            ["0.tar", "1.tar", "2.tar"],
            "folder",
            r"No class folder in \S+: it holds 3 tar files\. .*\(--data-format tar\)",
        ),
        (["a.png", "b.png"], "folder", r"it holds 2 images.*--data-format flat"),
        (["in/a.png"], "folder", "has one class only, 'in'"),
        (["in/a.txt", "b.png"], "folder", r"No class folder in \S+ holds an image: it holds .*1 image"),
        (["in/a.png"], "flat", "No image lies in .*--data-format tree"),
        (["a/b.png", "b/c.png"], "flat", "--data-format folder"),
        (["a.png"], "tar", r"No \.tar file .*it holds 1 image\..*--data-format flat"),
        (["a.png"], "parquet", "No .parquet file"),
        (["a.png"], "list", 'the format "list" reads one file'),
        (["a.csv"], None, "give that file, .*a.csv"),
        (["a.zip", "b.tar.gz"], None, "2 archives"),
        (["a.zip"], "folder", "Unpack"),
        ([], None, "holds no image: nothing"),
        ([], "tree", "holds no image: nothing"),
        (["a.md"], None, "1 other file"),
        (["a.png"], "imagefolder", "must be one of folder, tree"),
    ],
)
def test_another_format_than_was_thought_is_told(files: list[str], format: str, said: str, tmp_path: Path) -> None:
    for name in files:
        path = tmp_path / name
        if name.endswith(".png"):
            write(path)
        else:
            _made(path).write_bytes(b"\0" * 10240)
    with pytest.raises(Problem, match=said):
        open_dataset(tmp_path, format)


def test_a_file_that_is_no_data_set_is_told(tmp_path: Path) -> None:
    for name, said in (
        ("a.zip", "Unpack it"),
        ("a.tar.gz", "Unpack it"),
        ("a.doc", "Give a folder"),
        ("a", "Give a f"),
    ):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(Problem, match=said):
            open_dataset(tmp_path / name)
    with pytest.raises(Problem, match="There is no"):
        open_dataset(tmp_path / "none")
    with pytest.raises(Problem, match="Patterns are not expanded"):
        open_dataset(tmp_path / "train-{000..009}.tar")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(Problem, match=r"is a file; the format \"folder\" reads folders. The format \"list\" reads it"):
        open_dataset(tmp_path / "a.csv", "folder")


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_classes(tmp_path)
    scandir = os.scandir

    def denied(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(Problem, match=r"Cannot list .*dog: Permission denied"):
        open_dataset(tmp_path, "folder")


def _tar_of(path: Path, files: dict[str, bytes]) -> Path:
    import tarfile
    from io import BytesIO

    with tarfile.open(path, "w") as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, BytesIO(data))
    return path


def samples(first: int, count: int, **more) -> dict[str, bytes]:
    """Files of samples by name. more: by ending, what makes a sample's file from its number."""
    files = {}
    for number in range(first, first + count):
        files[f"./{number:05}.png"] = encoded(picture(number))
        for ending, make in more.items():
            files[f"./{number:05}.{ending}"] = make(number)
    return files


@pytest.mark.parametrize(
    ("more", "classes", "label"),
    [
        ({}, (), None),
        ({"cls": lambda number: f"{number % 3}\n".encode()}, ("0", "1", "2"), 1),
        ({"cls": lambda number: b"cat" if number % 2 else b"ape"}, ("ape", "cat"), 0),
        ({"json": lambda number: json.dumps({"label": number % 3, "text": "é"}).encode()}, ("0", "1", "2"), 1),
        ({"txt": lambda number: b"a caption"}, (), None),
    ],
)
def test_shards_are_read_in_place(more, classes, label, tmp_path: Path) -> None:
    _tar_of(tmp_path / "0.tar", samples(0, 3, **more))
    _tar_of(tmp_path / "1.tar", samples(3, 2, **more))
    found = open_dataset(tmp_path)
    assert (found.format, len(found), found.classes) == ("tar", 5, classes)
    assert (found.name(4), found.label(4)) == ("1.tar/00004.png", label)
    assert [found.read(i) for i in range(5)] == [encoded(picture(i)) for i in range(5)]
    assert len(open_dataset(tmp_path / "1.tar")) == 2
    assert np.array_equal(np.asarray(found.image(3)), np.asarray(picture(3)))
    before = found.fingerprint()
    _tar_of(tmp_path / "1.tar", samples(3, 3, **more))
    assert open_dataset(tmp_path).fingerprint() != before


def test_shards_that_are_none_are_told(tmp_path: Path) -> None:
    import gzip

    whole = _tar_of(tmp_path / "whole.tar", samples(0, 4)).read_bytes()
    path, second = tmp_path / "shard.tar", whole.index(b"./00001.png")
    for data, said in (
        (gzip.compress(whole), "gunzip .*shard.tar"),
        (whole[:9000], "cut off or damaged"),
        (whole[:second] + b"x" * 512 + whole[second + 512 :], "cut off or damaged"),
        (b"x" * 5000, "not a tar file"),
        (b"", "not a tar file"),
        (_tar_of(tmp_path / "two.tar", {"a.1.png": b"", "a.2.png": b""}).read_bytes(), "belong to one sample"),
        (
            _tar_of(tmp_path / "half.tar", {"a.png": b"", "b.png": b"", "b.cls": b"1"}).read_bytes(),
            "a.png .*has no label",
        ),
        (_tar_of(tmp_path / "bad.tar", {"a.png": b"", "a.json": b"{"}).read_bytes(), "not JSON"),
        (_tar_of(tmp_path / "tars.tar", {"n01.tar": b"", "n02.tar": b""}).read_bytes(), "2 .tar"),
    ):
        path.write_bytes(data)
        with pytest.raises(Problem, match=said):
            open_dataset(path)
    path.write_bytes(whole)
    dataset = open_dataset(path)
    path.write_bytes(whole[:3000])
    with pytest.raises(Problem, match="shorter"):
        dataset.read(3)


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_files_are_read_by_row(as_struct: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from polymae.data import tables

    (tmp_path / "data").mkdir()
    features = {"info": {"features": {"label": {"names": ["ape", "bee", "cat"], "_type": "ClassLabel"}}}}
    for number, split in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        rows = [encoded(picture(7 * number + i)) for i in range(7)]
        images = [{"bytes": row, "path": None} for row in rows] if as_struct else rows
        table = pa.table({"image": images, "label": [i % 2 for i in range(7)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, tmp_path / "data" / f"{split}.parquet", row_group_size=3)
    found = open_dataset(tmp_path)
    assert (found.format, len(found), found.classes) == ("parquet", 14, ("ape", "bee", "cat"))
    assert (found.name(8), found.label(8)) == ("train-00001-of-00002.parquet[1]", 1)
    monkeypatch.setattr(tables, "CACHE_BYTES", 0)  # each row group is read anew
    assert [found.read(i) for i in (13, 0, 6, 7, 3)] == [encoded(picture(i)) for i in (13, 0, 6, 7, 3)]
    assert list(found.sizes()) == [len(found.read(i)) for i in range(14)]
    assert found.fingerprint() == open_dataset(tmp_path / "data").fingerprint()
    assert found.fingerprint() != open_dataset(tmp_path / "data" / "test-00000-of-00001.parquet").fingerprint()


def test_parquet_files_without_images_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    for columns, said in (
        ({"text": ["a"]}, "has the columns text"),
        ({"image": ["a"]}, "is of type string"),
        ({"image": [b"a", b"b"], "label": [0, None]}, "Row 1 .*no label"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(Problem, match=said):
            open_dataset(path)
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "a.png"}, {"bytes": b"a", "path": ""}]}), path)
    with pytest.raises(Problem, match="holds no bytes"):
        open_dataset(path).read(0)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(Problem, match="not a parquet file"):
        open_dataset(path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(Problem, match="pip install pyarrow"):
        open_dataset(path)
