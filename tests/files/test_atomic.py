"""Replacing files and folders at once: two writers, killed writers, and what each leaves."""

import errno
import os
import pathlib
import signal
import threading
import time

import pytest
from children import LONG
from guard import in_child

from polymae.files import atomic
from polymae.files.atomic import BusyProblem, replacing


@pytest.fixture(params=["file", "folder"])
def put(request):
    """Writes a text to a path, as a file or as a folder of files."""

    def file(path, text):
        path.write_text(text)

    def folder(path, text):
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "a").write_text(text)
        (path / "b").write_text(text)

    return file if request.param == "file" else folder


def texts(path):
    """What is in all files below, or in the one file; hidden ones, too."""
    return [p.read_text() for p in ([path] if path.is_file() else sorted(path.rglob("*"))) if p.is_file()]


def write(put, target, text):
    with replacing(target) as new:
        put(new, text)


def killed_while_writing(put, target, text):
    def work():
        with replacing(target) as new:
            put(new, text)
            os.kill(os.getpid(), signal.SIGKILL)

    assert "SIGKILL" in in_child(work)


def test_nothing_but_the_target_is_left(put, tmp_path):
    target = tmp_path / "made" / "deep" / "w"
    for text in ("one", "two"):
        write(put, target, text)
        assert set(texts(target)) == {text}
        assert list(target.parent.iterdir()) == [target]
    with pytest.raises(TypeError), replacing(target) as new:
        put(new, 3)
    assert set(texts(target)) == {"two"}
    with pytest.raises(KeyError), replacing(tmp_path / "other" / "w") as new:
        raise KeyError
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("existing", [True, False])
def test_the_next_writer_removes_what_a_killed_one_left(put, existing, tmp_path):
    target = tmp_path / "w"
    if existing:
        write(put, target, "old")
    killed_while_writing(put, target, "half")
    names = {path.name for path in tmp_path.iterdir()} - {"w"}
    assert names == {".w.polymae-lock", ".w.polymae-new"}  # else this test would see nothing removed
    assert set(texts(target)) == ({"old"} if existing else set())
    write(put, target, "new")
    assert set(texts(target)) == {"new"}
    assert list(tmp_path.iterdir()) == [target]


def without_exchange(monkeypatch, instead):
    """Let folders be replaced by two renames, and the second one do something else."""
    rename = pathlib.Path.rename
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    monkeypatch.setattr(
        pathlib.Path, "rename", lambda path, to: instead() if path.name.endswith("-new") else rename(path, to)
    )


def put_folder(path, text):
    path.mkdir()
    (path / "a").write_text(text)


def test_a_folder_whose_writer_was_killed_between_two_renames_comes_back(tmp_path, monkeypatch):
    target = tmp_path / "w"
    write(put_folder, target, "old")
    with monkeypatch.context() as patched:
        without_exchange(patched, lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert "SIGKILL" in in_child(lambda: write(put_folder, target, "lost"))
    assert not target.exists()
    with pytest.raises(KeyError), replacing(target):
        raise KeyError
    assert texts(target) == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_folders_are_replaced_where_they_cannot_be_exchanged(tmp_path, monkeypatch):
    target = tmp_path / "w"
    write(put_folder, target, "old")
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    write(put_folder, target, "new")
    assert texts(target) == ["new"]

    def fail():
        raise OSError(errno.EIO, "planted")

    without_exchange(monkeypatch, fail)
    with pytest.raises(OSError, match="planted"):
        write(put_folder, target, "newer")
    assert texts(target) == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_two_folders_change_places_in_one_step_or_not_at_all(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.mkdir()
        (path / "name").write_text(path.name)
    done = atomic._exchange(one, other)
    assert texts(one) == (["other"] if done else ["one"])
    assert texts(other) == (["one"] if done else ["other"])
    with pytest.raises(FileNotFoundError):
        atomic._exchange(one, tmp_path / "none")


def test_a_second_writer_waits(put, tmp_path):
    target, order = tmp_path / "w", []
    inside = threading.Event()

    def first():
        with replacing(target) as new:
            inside.set()
            put(new, "first")
            time.sleep(0.2)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(LONG)
    with replacing(target) as new:
        order.append("second")
        assert set(texts(target)) == {"first"}
        put(new, "second")
    thread.join()
    assert order == ["first", "second"]
    assert set(texts(target)) == {"second"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_that_waited_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "PATIENCE", 0.05)
    with replacing(tmp_path / "w") as new:
        new.write_text("first")
        with pytest.raises(BusyProblem, match=r"Another process is writing .*/w and did not end.*name another file"):
            write(None, tmp_path / "w", "second")
        with replacing(tmp_path / "v") as beside:  # another target is no matter
            beside.write_text("v")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v", "w"]


def test_many_writers_at_once_never_meet(tmp_path):
    target, alone = tmp_path / "made" / "w", tmp_path / "alone"
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            status = 1
            try:
                for _ in range(25):
                    with replacing(target) as new:
                        alone.touch(exist_ok=False)  # raises where two are inside
                        new.write_text(str(number) * 1000)
                        alone.unlink()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(set(target.read_text())) == 1
    assert list(target.parent.iterdir()) == [target]


def test_file_systems_without_locks(put, tmp_path, monkeypatch):
    def none(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(atomic.fcntl, "flock", none)
    target = tmp_path / "w"
    with replacing(target) as one:
        put(one, "one")
        write(put, target, "two")
        assert set(texts(target)) == {"two"}
    assert set(texts(target)) == {"one"}
    assert list(tmp_path.iterdir()) == [target]


def test_names_as_long_as_the_file_system_allows(put, tmp_path):
    target = tmp_path / ("ä" * 127)
    write(put, target, "one")
    killed_while_writing(put, target, "half")
    assert len(list(tmp_path.iterdir())) == 3
    write(put, target, "two")
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_followed_out_of_the_folder(put, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("years")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".w.polymae-new").symlink_to(mine)
    (tmp_path / "out" / ".w.polymae-old").symlink_to(mine / "thesis")
    (tmp_path / "out" / ".w.polymae-lock").symlink_to(mine / "lock")
    with pytest.raises(OSError, match="symbolic link"):
        write(put, tmp_path / "out" / "w", "x")
    (tmp_path / "out" / ".w.polymae-lock").unlink()
    write(put, tmp_path / "out" / "w", "x")
    assert texts(mine) == ["years"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["w"]


def test_all_is_on_the_disk_before_it_is_in_place(put, tmp_path, monkeypatch):
    target, flushed = tmp_path / "made" / "w", []
    put_in_place, fsync = atomic._put_in_place, os.fsync

    def flush(descriptor):
        fsync(descriptor)
        flushed.append(str(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink()))

    def place(new, *others):
        expected = {str(path) for path in (new, *new.rglob("*"))}
        assert set(flushed) == expected
        flushed.clear()
        put_in_place(new, *others)

    monkeypatch.setattr(atomic.os, "fsync", flush)
    monkeypatch.setattr(atomic, "_put_in_place", place)
    write(put, target, "x")
    assert set(flushed) == {str(target.parent), str(tmp_path)}
