"""What the tests of downloads share."""

import os
import random
import signal

import pytest
from children import comes

from polymae.files.urls import DownloadProblem
from polymae.hub import download as module
from polymae.hub.download import download

BODY = random.Random(5).randbytes(1_000_000)
PART, SAID = ".w.pth.polymae-part", ".w.pth.polymae-part.json"
KEPT = [PART, SAID]


@pytest.fixture
def quick(monkeypatch):
    """Nothing is waited for."""
    monkeypatch.setattr(module, "PAUSE", 0.001)


@pytest.fixture(name="target")
def target_path(tmp_path):
    return tmp_path / "made" / "w.pth"


def is_body(path):
    assert path.read_bytes() == BODY


def names(target):
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def forked(work):
    """Start a child that does something; its number. It ends with status 0, or 130 after Ctrl-C."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work()
            status = 0
        except KeyboardInterrupt:
            status = 130
        finally:
            os._exit(status)
    return child


def wait_for(condition):
    assert comes(condition)


def refused(url, target, check=is_body, **how):
    """The sentence with which a download is refused; nothing stands at the target."""
    with pytest.raises(DownloadProblem) as raised:
        download(url, target, check, **how)
    assert not target.exists()
    assert ".w.pth.polymae-lock" not in names(target)
    said = str(raised.value)
    assert "secret" not in said
    assert "\n" not in said
    return said


def secret(url):
    return url.replace("//", "//me:secret@") + "?token=secret"
