"""Addresses with a login and a signed query: nowhere printed, nowhere kept."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from registered import ALONE, WHOLE

from polymae.cli import main
from polymae.files import urls
from polymae.files.errors import Problem
from polymae.hub.fetch import fetch_url


def commands(there, nowhere, away):
    """Everything that takes an address, with ones that are right, wrong, and none."""
    ftp, bare, bracket = there.replace("http:", "ftp:"), there.replace("http://", ""), f"{there}/["
    for url in (there, nowhere, away, ftp, bare, bracket, "hf://" + there):
        for words in (["path"], ["download"], ["verify"], ["clear", "--converted"], ["list"], ["verify", "--json"]):
            yield "weights", *words, url
        if url in (there, nowhere, away):  # to these commands, what is no web address is a path
            yield "inspect", url
            yield "diff", url, url
        yield "weights", "download", "--framework", "mindspore", url
        yield "weights", url
        yield (url,)
    yield "weights", "list"
    yield "weights", "list", "--json"
    yield "weights", "verify", "--json"
    yield "weights", "clear", "--all", there


@pytest.mark.usefixtures("quick")
def test_no_command_tells_a_secret(shelf, capfd, monkeypatch):
    said = json.loads(shelf.registry.read_text())
    said["sources"]["official"]["url"] = shelf.server.base.replace("//", "//me:hush@") + "/mae/"
    shelf.registry.write_text(json.dumps(said))
    there = shelf.server.add("/w.pth", shelf.bodies[WHOLE]).replace("//", "//me:hush@") + "?tok=hush#hush"
    away = "http://me:hush@127.0.0.1:9/x.pth?tok=hush"
    asked = list(commands(there, there.replace("w.pth", "none.pth"), away))
    asked += [("weights", "download", WHOLE), ("weights", "list", "--json")]
    for mirror in ("", "http://me:hush@[/x?tok=hush", "ftp://me:hush@host/mae", away):
        monkeypatch.setenv("POLYMAE_MIRROR", mirror)
        asked_now = asked if not mirror else [("weights", "download", ALONE), ("inspect", ALONE)]
        for words in asked_now:
            with suppress(SystemExit):  # of the parser
                main(list(words))
            out, err = capfd.readouterr()
            assert "hush" not in out + err, words
            assert "Traceback" not in err
            files = [path for path in shelf.home.rglob("*") if path.is_file()]
            assert not [path for path in files if b"hush" in path.name.encode() + path.read_bytes()], words
    assert shelf.path().is_file()  # they did something
    assert shelf.server.gets["/w.pth"] == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:hush@host/x.pth?tok=hush#hush", "https://host/x.pth"), ("me:hush@host/x.pth", "host/x.pth"),
        ("https://me:hu/sh@host/x", "https://host/x"), ("HTTPS://hush@host:99999/x", "HTTPS://host:99999/x"),
        ("http://me:hush@[::1/x", "http://[::1/x"), ("https://host/@main/x.pth", "https://host/@main/x.pth"),
        ("owner/name@main", "owner/name@main"), ("", ""), ("w.pth", "w.pth"),
    ],
)  # fmt: skip
def test_how_an_address_is_shown(url, shown):
    assert urls.shown(url) == shown
    assert urls.scrubbed(f"GET '{url}' failed") == (f"GET '{shown}' failed" if "://" in url else f"GET '{url}' failed")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://me:hush@host/x.pth?tok=hush", "http://me:hush@[host/x.pth?tok=hush", "file:///etc/passwd", "w.pth",
        "http://", "http:///w.pth", "http://[::1/w.pth?hush", "",
    ],
)  # fmt: skip
def test_what_is_no_web_address_is_refused_without_what_it_hides(url, shelf):
    with pytest.raises(Problem, match="is no web address; one begins with http:// or https://") as raised:
        fetch_url(url)
    assert "hush" not in str(raised.value)
    assert not shelf.home.exists()
