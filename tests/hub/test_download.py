"""Downloading: once, whole, resumed after whatever ended it, and by one process at a time."""

import contextlib
import json
import os
import random
import signal
import sys
import threading

import pytest
from children import LONG
from downloads import BODY, PART, SAID, forked, is_body, names, refused, wait_for
from guard import in_child
from server import LAST_MODIFIED, File

from polymae.cli import run_safely
from polymae.files import atomic
from polymae.files.atomic import BusyProblem, alone
from polymae.hub import download as module
from polymae.hub.download import download
from polymae.hub.progress import Display

pytestmark = pytest.mark.usefixtures("quick")
OTHER = random.Random(6).randbytes(len(BODY))
CUT = 600_000  # 60 %


def test_downloaded_once_and_checked_before_it_is_there(server, target, capfd):
    url, checked = server.add("/deep/w.pth", BODY), []

    def check(path):
        is_body(path)
        assert path.parent == target.parent
        checked.append(target.exists())

    assert download(url + "?token=secret", target, check)
    assert download(url, target, check) is False
    assert checked == [False]
    assert names(target) == ["w.pth"]
    assert server.gets["/deep/w.pth"] == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == "downloading w.pth, 1.0 MB, from 127.0.0.1 ...\ndownloaded w.pth, 1.0 MB\n"
    is_body(target)


@pytest.mark.parametrize("how", [{}, {"etag": None}, {"etag": 'W/"weak"'}], ids=["etag", "date", "weak etag"])
def test_a_cut_is_resumed_from_where_it_was(how, server, target, capfd):
    url = server.add("/w.pth", BODY, cuts=[CUT], **how)
    assert download(url, target, is_body)
    assert server.asked == [("/w.pth", None), ("/w.pth", f"bytes={CUT}-")]
    assert server.sent["/w.pth"] == len(BODY)  # in all: the second time only the missing 40 %
    assert names(target) == ["w.pth"]
    assert "downloading w.pth, 1.0 MB, from 127.0.0.1, resuming at 60 % ..." in capfd.readouterr().err


def test_many_cuts_are_no_matter_while_more_comes_each_time(server, target):
    url = server.add("/w.pth", BODY, cuts=[100_000] * 9)
    assert download(url, target, is_body)
    assert server.sent["/w.pth"] == len(BODY)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_the_next_process_goes_on(end, server, target, capfd):
    url = server.add("/w.pth?token=secret", BODY)
    server.files["/w.pth"] = File(BODY, gate=threading.Event())
    child = forked(lambda: download(url, target, is_body))
    part = target.parent / PART
    assert server.half.wait(LONG)
    wait_for(lambda: part.exists() and part.stat().st_size > len(BODY) // 2 - 20_000)
    os.kill(child, end)
    status = os.waitpid(child, 0)[1]
    assert status == (9 if end == signal.SIGKILL else 130 << 8)
    length = part.stat().st_size
    left = names(target)
    assert left == ([".w.pth.polymae-lock"] if end == signal.SIGKILL else []) + [PART, SAID]
    said = json.loads((target.parent / SAID).read_text())
    gate, server.files["/w.pth"] = server.files["/w.pth"].gate, File(BODY)
    assert said == {"url": server.base + "/w.pth", "validator": server.files["/w.pth"].tag, "size": len(BODY)}
    gate.set()
    for path in target.parent.iterdir():  # a lock file of any age keeps nobody waiting
        os.utime(path, (0, 2**33 if length % 2 else 0))
    server.sent.clear()
    assert download(url, target, is_body)
    assert server.sent["/w.pth"] == len(BODY) - length
    assert names(target) == ["w.pth"]
    heard = capfd.readouterr().err
    promise = f"{100 * length // len(BODY)} % of it are kept: the next time goes on from there"
    assert (promise in heard) == (end == signal.SIGINT)


def test_what_was_complete_when_the_process_died_is_not_fetched_again(server, target):
    url = server.add("/w.pth", BODY)
    assert "SIGKILL" in in_child(lambda: download(url, target, lambda path: os.kill(os.getpid(), signal.SIGKILL)))
    assert PART in names(target)
    assert download(url, target, is_body)
    assert server.gets["/w.pth"] == 1
    assert names(target) == ["w.pth"]


def leave(target, body, **said):
    """Let a part lie there, as a killed process left it."""
    target.parent.mkdir(exist_ok=True)
    (target.parent / PART).write_bytes(body)
    (target.parent / SAID).write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("how", "requests"),
    [
        ({"ranges": False}, 1), ({}, 1), ({"if_range": False}, 2), ({"early": 1000, "if_range": False, "etag": None}, 2),
        ({"if_range": False, "etag": None, "modified": "Thu, 02 Dec 2021 12:00:00 GMT"}, 2),
    ],
    ids=["ranges are ignored", "changed", "changed, If-Range ignored", "another range", "changed date"],
)  # fmt: skip
def test_starts_again_where_the_rest_would_be_of_another_file(how, requests, server, target):
    url = server.add("/w.pth", BODY, **how)
    validator = LAST_MODIFIED if "etag" in how else File(BODY if "ranges" in how else OTHER).tag
    leave(target, OTHER[:CUT], url=url, validator=validator, size=len(BODY))
    assert download(url, target, is_body)
    assert server.asked[0] == ("/w.pth", f"bytes={CUT}-")  # else this test would see nothing thrown away
    assert len(server.asked) == requests
    assert names(target) == ["w.pth"]


@pytest.mark.parametrize(
    "said",
    [
        {"url": "http://elsewhere/w.pth", "validator": '"x"', "size": 1_000_000},
        {"validator": "", "size": 1_000_000}, {"validator": '"x"', "size": 5}, {"validator": '"x"', "size": True},
        {"validator": '"x"\r\nX-Planted: 1', "size": 1_000_000}, {"validator": 3, "size": None}, {"size": 1_000_000}, {},
    ],
)  # fmt: skip
def test_what_lies_there_is_not_trusted(said, server, target):
    url = server.add("/w.pth", BODY)
    leave(target, OTHER[:CUT], **{"url": url, **said})
    assert download(url, target, is_body)
    assert server.asked == [("/w.pth", None)]
    assert names(target) == ["w.pth"]


def test_links_that_lie_there_are_not_followed(server, target, tmp_path):
    url, mine = server.add("/w.pth", BODY), tmp_path / "thesis"
    mine.write_text("years")
    target.parent.mkdir()
    for name in (PART, SAID, "w.pth"):
        (target.parent / name).symlink_to(mine if name != "w.pth" else tmp_path / "none")
    assert download(url, target, is_body)
    assert mine.read_text() == "years"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "thesis"]
    assert names(target) == ["w.pth"]


def test_eight_processes_download_once(server, target, tmp_path):
    url, heard = server.add("/w.pth", BODY, gate=threading.Event()), tmp_path / "heard"

    def work():
        sys.stderr = heard.open("a")
        if download(url, target, is_body):
            (tmp_path / f"downloaded-{os.getpid()}").touch()
        is_body(target)

    children = [forked(work) for _ in range(8)]
    assert server.half.wait(LONG)
    wait_for(lambda: heard.read_text().count("waiting for another process that downloads w.pth ...\n") == 7)
    server.files["/w.pth"].gate.set()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(server.asked) == 1
    assert len(list(tmp_path.glob("downloaded-*"))) == 1
    assert names(target) == ["w.pth"]


def test_one_that_waits_goes_on_where_the_first_one_is_killed(server, target, tmp_path):
    url = server.add("/w.pth", BODY, gate=threading.Event())
    first = forked(lambda: download(url, target, is_body))
    assert server.half.wait(LONG)
    heard = tmp_path / "heard"

    def wait():
        sys.stderr = heard.open("a")
        download(url, target, is_body)

    second = forked(wait)
    wait_for(lambda: heard.exists() and "waiting for another process" in heard.read_text())
    server.files["/w.pth"], gate = File(BODY), server.files["/w.pth"].gate
    os.kill(first, signal.SIGKILL)
    gate.set()
    assert os.waitpid(first, 0)[1] == signal.SIGKILL
    assert os.waitpid(second, 0)[1] == 0
    is_body(target)
    assert names(target) == ["w.pth"]


def test_patience_ends_only_where_nothing_comes(server, target, monkeypatch):
    url = server.add("/w.pth", BODY)
    monkeypatch.setattr(module, "STUCK", 0.2)
    with alone(target):
        with pytest.raises(BusyProblem, match=r"Another process is writing .*w\.pth and did not end"):
            download(url, target, is_body)
        grows = iter(range(8))
        with pytest.raises(BusyProblem), alone(target, 0.1, lambda: next(grows, None)):
            pass
        assert next(grows, None) is None
    assert download(url, target, is_body)


def test_file_systems_without_locks(server, target, monkeypatch):
    def none(descriptor, operation):
        raise OSError(37, "no locks")

    monkeypatch.setattr(atomic.fcntl, "flock", none)
    url = server.add("/w.pth", BODY, cuts=[CUT])

    def check(path):
        assert path.name.startswith(PART + "-")  # of this process alone
        is_body(path)

    assert download(url, target, check)
    assert names(target) == ["w.pth"]
    target.unlink()
    server.files["/w.pth"].cuts = [CUT, *[0] * 9]
    refused(url, target)
    assert names(target) == []  # of no use to anybody


def test_names_as_long_as_the_file_system_allows(server, tmp_path):
    url = server.add("/w.pth", BODY, cuts=[CUT])
    assert download(url, tmp_path / ("ä" * 127), is_body)
    assert len(list(tmp_path.iterdir())) == 1


def test_proxy_from_the_environment(server, target, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.base)
    url = server.add("/w.pth", BODY)
    assert download(url, target, is_body)
    assert server.seen == [url, "/w.pth"]


def test_a_bar_in_a_terminal(server, target, capfd, monkeypatch):
    master, slave = os.openpty()
    heard = ""

    def listen():
        nonlocal heard
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(master, 4096):
                heard += more.decode()

    listening = threading.Thread(target=listen)
    listening.start()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        refused(server.add("/w.pth", BODY, cuts=[CUT, *[0] * 9]), target)
        assert download(server.add("/w.pth", BODY, cuts=[CUT]), target.with_name("w[b].pth"), is_body)
    listening.join(LONG)
    os.close(master)
    assert "downloaded w[b].pth, 1.0 MB" in heard
    assert "━" in heard
    assert heard.count("\x1b[?25l") == heard.count("\x1b[?25h")  # the cursor comes back
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_does_not_say_whether_it_can_go_on(ranges, server, target, capfd):
    """As python -m http.server, which cannot: a part that is of no use is not promised, and it is said that it goes."""
    url = server.add("/w.pth", BODY, ranges=ranges, cuts=[600_000, 0, 0, 0, 0, 0])
    said = refused(url, target)
    kept = "60 % of it are kept: the next time goes on from there, if the server can send the rest."
    assert (kept in said) == ("kept" in said) == ranges
    server.add("/w.pth", BODY, ranges=ranges, cuts=[600_000])
    assert download(url, target, is_body)
    again = "60 % of w.pth were there, but 127.0.0.1 sends all of it again: it cannot send only the rest."
    assert capfd.readouterr().err.count(again) == (0 if ranges else 2)


def test_a_file_that_has_changed_is_begun_again_and_that_is_said(server, target, capfd):
    url = server.add("/w.pth", b"-" + BODY, cuts=[600_000, 0, 0, 0, 0, 0])
    refused(url, target)
    server.add("/w.pth", BODY)
    assert download(url, target, is_body)
    assert "59 % of w.pth were there, but 127.0.0.1 sends all of it again: it is another file" in capfd.readouterr().err


def test_what_is_said_after_ctrl_c_agrees(server, target, capfd):
    url = server.add("/w.pth", BODY, gate=threading.Event())
    child = forked(lambda: os._exit(run_safely("polymae weights", lambda: download(url, target, is_body))))
    assert server.half.wait(LONG)
    wait_for(lambda: any(path.stat().st_size > len(BODY) // 3 for path in target.parent.glob("*-part")))
    os.kill(child, signal.SIGINT)
    assert os.waitpid(child, 0)[1] == 130 << 8
    server.files["/w.pth"].gate.set()
    said = capfd.readouterr().err
    assert "% of it are kept: the next time goes on from there, if the server can send the rest." in said
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
