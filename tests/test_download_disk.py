"""Downloads that this machine does not let happen: one sentence that says what to do, and a folder that is right."""

import errno
import os
import resource
import signal
import sys
from types import SimpleNamespace

import pytest
from downloads import BODY, KEPT, PART, is_body, names, quick, refused, target_path  # noqa: F401  (fixtures)
from guard import in_child
from server import unused_port, web_server  # noqa: F401  (fixture)

from polymae.hub import download as module
from polymae.hub.download import download
from polymae.hub.part_file import Partial

pytestmark = pytest.mark.usefixtures("quick")


def test_no_room_before_the_start(server, target, monkeypatch):
    url = server.add("/w.pth", BODY)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=module.MARGIN + 999_999))
    said = refused(url, target)
    assert f"1.0 MB and 16.8 MB to spare are needed in {target.parent}, and 17.8 MB are free. Make room." in said
    assert "POLYMAE_HOME" in said
    assert not target.parent.exists()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=module.MARGIN + 1_000_000))
    assert download(url, target, is_body)


def test_the_kernel_lets_no_file_grow(server, target):
    url = server.add("/w.pth", BODY)

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        said = refused(url, target)
        assert f"w.pth could not be kept in {target.parent}: File too large. Make room, then try again" in said

    assert not in_child(work)
    assert names(target) == KEPT
    assert (target.parent / PART).stat().st_size == 600_000
    assert download(url, target, is_body)
    assert server.asked[-1] == ("/w.pth", "bytes=600000-")
    assert names(target) == ["w.pth"]


def test_the_disk_is_full(server, target, monkeypatch):
    url = server.add("/w.pth", BODY)
    with monkeypatch.context() as patched:
        patched.setattr(Partial, "opened", lambda part: open("/dev/full", "wb", buffering=0))  # noqa: PTH123, SIM115
        said = refused(url, target)
    assert "w.pth could not be kept in" in said
    assert "No space left on device. Make room, then try again." in said
    assert "kept." not in said  # nothing is
    assert names(target) == []
    assert download(url, target, is_body)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_of_somebody_else(there, server, target, monkeypatch):
    url = server.add("/w.pth", BODY)
    target.parent.mkdir()
    if there:
        target.write_bytes(BODY)
    target.parent.chmod(0o555)

    def work():
        os.chdir(target.parent)
        if not os.getuid():
            os.setuid(65534)
        here = target.relative_to(target.parent)
        if there:
            assert download(url, here, is_body) is False
            return
        said = refused(url, here)
        assert "w.pth could not be kept in .: Permission denied. The folder must be one that you can write to." in said
        assert "POLYMAE_HOME names another folder" in said

    assert not in_child(work)
    assert names(target) == (["w.pth"] if there else [])
    assert not server.asked


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO])
def test_a_disk_that_cannot_be_written(code, server, target, monkeypatch):
    def fail(part):
        raise OSError(code, os.strerror(code), str(part.path))

    url = server.add("/w.pth", BODY)
    monkeypatch.setattr(Partial, "opened", fail)
    said = refused(url, target)
    advice = "The folder must be one that you can write to." if code == errno.EROFS else "Check the disk."
    assert f"could not be kept in {target.parent}: {os.strerror(code)}. {advice}" in said
    assert not target.parent.exists()


@pytest.mark.parametrize("library", ["requests", "urllib3"])
def test_without_the_library(library, target, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "polymae.hub.transport")
    said = refused("http://127.0.0.1:9/w.pth", target)
    assert f"{library} is not installed, and nothing is downloaded without it: pip install -r" in said


def test_a_name_that_is_too_long(server, target):
    said = refused(server.add("/w.pth", BODY), target.with_name("w" * 256))
    assert "File name too long" in said
    assert not server.asked
