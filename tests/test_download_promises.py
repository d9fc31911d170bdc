"""What a person is told of a download that is not complete: only what is so."""

import os
import signal
import threading

import pytest
from children import LONG
from downloads import BODY, forked, is_body, names, quick, refused, target_path, wait_for  # noqa: F401  (fixtures)
from server import web_server  # noqa: F401  (fixture)

from polymae.cli import run_safely
from polymae.hub import download as module
from polymae.hub.download import download
from polymae.hub.progress import Display

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_does_not_say_whether_it_can_go_on(ranges, server, target, capfd):
    """As python -m http.server, which cannot: nothing is promised, and what is thrown away is said."""
    url = server.add("/w.pth", BODY, ranges=ranges, accept=False, cuts=[600_000, 0, 0, 0, 0, 0])
    said = refused(url, target)
    assert ("60 % of it are kept" in said) == ranges
    assert "kept" in said or not ranges
    server.add("/w.pth", BODY, ranges=ranges, accept=False, cuts=[600_000])
    assert download(url, target, is_body)
    again = "60 % of w.pth were there, but 127.0.0.1 sends all of it again: it cannot send only the rest."
    assert capfd.readouterr().err.count(again) == (0 if ranges else 2)


def test_a_file_that_has_changed_is_begun_again_and_that_is_said(server, target, capfd):
    url = server.add("/w.pth", b"-" + BODY, cuts=[600_000, 0, 0, 0, 0, 0])
    refused(url, target)
    server.add("/w.pth", BODY)
    assert download(url, target, is_body)
    assert "59 % of w.pth were there, but 127.0.0.1 sends all of it again: it is another file" in capfd.readouterr().err


@pytest.mark.parametrize("accept", [True, False])
def test_what_is_said_after_ctrl_c_agrees(accept, server, target, capfd):
    url = server.add("/w.pth", BODY, gate=threading.Event(), accept=accept)
    child = forked(lambda: os._exit(run_safely("polymae weights", lambda: download(url, target, is_body))))
    assert server.half.wait(LONG)
    wait_for(lambda: any(path.stat().st_size > len(BODY) // 3 for path in target.parent.glob("*-part")))
    os.kill(child, signal.SIGINT)
    assert os.waitpid(child, 0)[1] == 130 << 8
    server.files["/w.pth"].gate.set()
    said = capfd.readouterr().err
    assert ("% of w.pth are kept: the next time goes on from there." in said) == accept
    assert "polymae weights: stopped; at its own place, every file is as it was before, or complete." in said
    assert "w.pth" not in names(target)


def test_while_nothing_comes_no_speed_is_shown(server, target, monkeypatch):
    """Neither beside the line that says so, nor as that of the time before when bytes come again."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    displays, waits = [], []

    class Seen(Display):
        def __init__(self, *names):
            super().__init__(*names)
            displays.append(self)

        def begin(self, *sizes):
            super().begin(*sizes)
            waits.append(("begins", self.bar.tasks[0].visible, self.bar.tasks[0].speed))

    monkeypatch.setattr(module, "Display", Seen)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: waits.append(("waits", displays[0].bar.tasks[0].visible)))
    assert download(server.add("/w.pth", BODY, cuts=[600_000]), target, is_body)
    assert waits == [("begins", True, None), ("waits", False), ("begins", True, None)]
