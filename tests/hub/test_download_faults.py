"""Downloads that fail, by the network or on this machine: one sentence that says what to do, and a folder that is right."""

import errno
import os
import resource
import signal
import ssl
import sys
import threading
from types import SimpleNamespace

import pytest
import trustme
from downloads import BODY, KEPT, PART, is_body, names, refused, secret
from guard import in_child
from server import unused_port

from polymae.files.errors import Problem
from polymae.hub import download as module
from polymae.hub.download import download
from polymae.hub.part_file import PartFile

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "404 Not Found. The file is not there, or not any more: check the address."),
        (403, "403 Forbidden. It refuses this file, or this network."),
        (401, "401 Unauthorized. It wants a login"),
        (206, "206 Partial Content. Check the address."),
        (599, "599. Check the address."),
    ],
)
def test_other_answers(status, says, server, target):
    url = server.add("/w.pth", BODY, statuses=[status])
    said = refused(secret(url), target)
    assert said.startswith(f"{url} answered {says}")
    assert "POLYMAE_MIRROR" not in said  # which would not change where this address leads
    assert not target.parent.exists()  # the folder made for it is gone, too
    assert len(server.asked) == 1  # it was not asked in vain again


@pytest.mark.parametrize("statuses", [[500, 500, 500], [503, 429], [502, 504]])
def test_a_busy_server_is_asked_again(statuses, server, target):
    url = server.add("/w.pth", BODY, statuses=statuses.copy())
    assert download(url, target, is_body)
    assert len(server.asked) == len(statuses) + 1
    assert names(target) == ["w.pth"]


def test_a_busy_server_is_not_asked_for_ever(server, target):
    url = server.add("/w.pth", BODY, statuses=[500] * 9)
    said = refused(secret(url), target)
    assert f"{url} could not be downloaded: it answered 500 Internal Server Error, 6 times in a row. Check the" in said
    assert "try again later" in said
    assert len(server.asked) == 6
    assert not target.parent.exists()


def test_a_server_that_asks_for_an_hour(server, target, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    url = server.add("/w.pth", BODY, statuses=[503], headers={"Retry-After": "3600"})
    assert download(url, target, is_body)
    assert waits == [60]


@pytest.mark.parametrize("left", [False, True], ids=["first", "resumed"])
def test_a_captive_portal(left, server, target):
    url = server.add("/w.pth", BODY, cuts=[600_000, 0, 0, 0, 0, 0])
    if left:
        refused(url, target)
        assert names(target) == KEPT
    server.add("/w.pth", b"Log in", kind="text/html; charset=utf-8")
    said = refused(secret(url), target)
    assert f"{url} answered with a web page instead of the file. Perhaps this network wants a login first" in said
    assert names(target) == (KEPT if left else [])
    server.add("/w.pth", BODY)
    assert download(url, target, is_body)
    assert server.asked[-1] == ("/w.pth", "bytes=600000-" if left else None)


def test_the_wrong_file(server, target):
    url = server.add("/w.pth", BODY)

    def check(path):
        raise Problem("its md5 begins with 0123, not with 8cad")

    with pytest.raises(Problem, match="its md5 begins with 0123"):
        download(url, target, check)
    assert names(target) == []
    assert download(url, target, is_body)


def test_a_check_that_is_interrupted_keeps_the_file(server, target):
    url = server.add("/w.pth", BODY)

    def check(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(url, target, check)
    assert names(target) == KEPT
    assert download(url, target, is_body)
    assert server.gets["/w.pth"] == 1


def test_a_content_length_that_is_wrong(server, target):
    said = refused(server.add("/w.pth", BODY, length=1_000_500), target)
    assert "/w.pth could not be downloaded: the connection was cut, 6 times in a row." in said
    url = server.add("/w.pth", BODY, length=900_000)
    with pytest.raises(AssertionError):  # only the check can tell
        download(url, target, is_body)
    assert names(target) == []
    server.add("/w.pth", BODY)
    assert download(url, target, is_body)
    assert names(target) == ["w.pth"]


def test_without_a_content_length(server, target):
    url = server.add("/w.pth", BODY, lengths=False)
    assert download(url, target, is_body)
    target.unlink()
    server.add("/w.pth", BODY, lengths=False, cuts=[500_000])
    with pytest.raises(AssertionError):  # only the check can tell
        download(url, target, is_body)
    assert names(target) == []


def test_cut_without_end(server, target, capfd):
    url = server.add("/w.pth", BODY, cuts=[600_000, *[0] * 20])
    said = refused(secret(url), target)
    assert f"{url} could not be downloaded: the connection was cut, 6 times in a row. 60 % of it are kept" in said
    assert "trying again in 0.001 s ..." in capfd.readouterr().err
    assert names(target) == KEPT
    server.sent.clear()
    server.files["/w.pth"].cuts.clear()
    assert download(url, target, is_body)
    assert server.sent["/w.pth"] == 400_000


def test_cut_by_a_server_that_cannot_go_on(server, target):
    url = server.add("/w.pth", BODY, etag=None, modified=None, cuts=[600_000] * 20)
    said = refused(url, target)
    assert "kept" not in said
    assert not target.parent.exists()
    assert {asked for _, asked in server.asked} == {None}


def test_no_network(server, target, monkeypatch):
    url = f"http://127.0.0.1:{unused_port()}/w.pth"
    said = refused(secret(url), target)
    assert f"{url} could not be downloaded: Connection refused, 3 times in a row. Check the network" in said
    assert "HTTPS_PROXY names a proxy" in said
    said = refused("http://nobody.invalid/w.pth?token=secret", target)
    assert "http://nobody.invalid/w.pth could not be downloaded: " in said
    assert "name" in said.partition("downloaded: ")[2].partition(",")[0].lower()  # Name or service not known
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{unused_port()}")
    assert "through the proxy: Connection refused" in refused(server.add("/w.pth", BODY), target)
    assert not target.parent.exists()
    assert not server.asked


def test_a_server_that_says_nothing(server, target, monkeypatch):
    monkeypatch.setattr("polymae.hub.transport.TIMEOUTS", (1.0, 0.05))
    url = server.add("/w.pth", BODY, gate=threading.Event())
    said = refused(url, target)
    server.files["/w.pth"].gate.set()
    assert "no answer in time, 6 times in a row. " in said
    assert names(target) == KEPT


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_offline(value, server, target, monkeypatch):
    monkeypatch.setenv("POLYMAE_OFFLINE", value)
    url = server.add("/w.pth", BODY)
    said = refused(secret(url), target)
    assert said == (
        "w.pth is not in the cache and POLYMAE_OFFLINE is set, so nothing is fetched. "
        f"Unset it, or put the file of {url} at {target} yourself."
    )
    assert not target.parent.exists()
    monkeypatch.setenv("POLYMAE_OFFLINE", "0")
    assert download(url, target, is_body)
    monkeypatch.setenv("POLYMAE_OFFLINE", value)
    assert download(url, target, is_body) is False
    assert len(server.asked) == 1


@pytest.mark.parametrize("to", ["file:///etc/passwd", "http://127.0.0.1:99999/?secret", "/w.pth"])
def test_redirects_lead_nowhere_else(to, server, target):
    url = server.add("/w.pth", BODY, statuses=[302] * 50, headers={"Location": to})
    said = refused(secret(url), target)
    assert f"{url} cannot be downloaded: it, or where it leads, is no http or https address" in said
    assert "passwd" not in said


def test_the_name_is_never_the_servers(server, target):
    server.add("/deep/other.pth", BODY, headers={"Content-Disposition": 'attachment; filename="../../evil.pth"'})
    url = server.add("/w.pth", b"", statuses=[302], headers={"Location": "/deep/other.pth"})
    assert download(url, target, is_body)
    assert names(target) == ["w.pth"]
    assert names(target.parent) == ["made"]


def test_certificates(server, target, tmp_path, monkeypatch):
    """An unknown one is refused; one that REQUESTS_CA_BUNDLE names is not; and https does not lead to http."""
    authority, certificate = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    plain = server.add("/w.pth", BODY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    other = type(server)()
    other.http.socket = context.wrap_socket(other.http.socket, server_side=True)
    with other.running():
        url = other.add("/w.pth", BODY).replace("http:", "https:")
        said = refused(secret(url), target)
        assert f"{url} cannot be trusted: unable" in said  # to get the issuer's certificate
        assert "REQUESTS_CA_BUNDLE" in said
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        other.add("/away.pth", BODY, statuses=[302], headers={"Location": plain})
        said = refused(url.replace("/w.pth", "/away.pth"), target)
        assert "leads from https to http, where anybody may change it." in said
        assert not target.parent.exists()
        assert download(url, target, is_body)


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
        patched.setattr(PartFile, "opened", lambda part: open("/dev/full", "wb", buffering=0))  # noqa: PTH123, SIM115
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
    monkeypatch.setattr(PartFile, "opened", fail)
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
