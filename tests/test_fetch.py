"""The cache of weights: what is kept, what is refused, and that it is right after everything that can go wrong."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager

import pytest
from checkpoints import CONFIG, ENCODER, WEIGHTS
from registered import ALONE, WHOLE, shelf_of_weights, start  # noqa: F401  (fixture)
from server import web_server  # noqa: F401  (fixture)

from polymae.convert.checkpoint import content_hash
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.hub import download
from polymae.hub.fetch import fetch, fetch_url, kept
from polymae.hub.inventory import cached
from polymae.hub.receipts import home, read_record, record_path

HTML = b"<!DOCTYPE html><title>Log in to the network</title>"


def refused(row, *words):
    """Have a fetch refused, with these words in its message."""
    with pytest.raises(Problem) as raised:
        fetch(row)
    for word in words:
        assert word in str(raised.value)
    return str(raised.value)


def test_a_published_file_is_downloaded_once_and_its_licence_is_said_once(shelf, capsys, monkeypatch):
    for name in (WHOLE, ALONE, WHOLE):
        path = fetch(shelf.row(name))
        assert path == shelf.path(name)
        assert path.read_bytes() == shelf.bodies[name]
    assert shelf.gets() == 2
    assert capsys.readouterr().err.count("CC-BY-NC") == 1
    body, record = shelf.bodies[WHOLE], read_record(shelf.path())
    assert record is not None
    assert (record.bytes, record.name) == (len(body), WHOLE)
    assert (record.md5, record.sha256) == (hashlib.md5(body).hexdigest(), hashlib.sha256(body).hexdigest())
    assert record.hash == content_hash(WEIGHTS)
    assert record.url == shelf.row().url
    shelf.server.http.server_close()
    monkeypatch.setenv("POLYMAE_OFFLINE", "1")
    assert fetch(shelf.row()) == kept(shelf.row()) == shelf.path()


def wrong_bodies(shelf, tmp_path):
    """What a server may send in place of the file, and what is said of it without and with a published digest."""
    body = shelf.bodies[WHOLE]
    flipped = bytearray(body)
    flipped[len(body) // 2] ^= 1
    official_checkpoint(tmp_path / "other.pth", CONFIG, {name: -array for name, array in WEIGHTS.items()})
    other = (tmp_path / "other.pth").read_bytes()
    found = f"md5 {{}}, expected {hashlib.md5(body).hexdigest()[:6]}..."
    return {
        "encoder": (shelf.bodies[ALONE], "holds encoder weights", "holds encoder weights"),
        "flipped": (bytes(flipped), "damaged", found.format(hashlib.md5(flipped).hexdigest())),
        "other": (other, None, found.format(hashlib.md5(other).hexdigest())),
        "cut": (body[:-100], "not the checkpoint that was expected", "expected"),
        "html": (HTML, "web page", "web page"),
    }


@pytest.mark.parametrize("kind", ["encoder", "flipped", "other", "cut", "html"])
@pytest.mark.parametrize("digest", [False, True])
def test_another_file_never_enters_the_cache(shelf, kind, digest, tmp_path):
    body, *words = wrong_bodies(shelf, tmp_path)[kind]
    row = shelf.row() if digest else shelf.row(digests={})
    shelf.server.add(f"/mae/{WHOLE}.pth", body)
    if words[digest] is None:  # nothing is published by which it could be known
        assert fetch(row).read_bytes() == body
        row = shelf.row(digests={"sha256": hashlib.sha256(shelf.bodies[WHOLE]).hexdigest()})
    stands = [one.path for one in cached()]
    said = refused(row, words[digest] or "sha256", "POLYMAE_MIRROR", row.name)
    assert ".polymae-part" not in said
    assert [one.path for one in cached()] == stands == ([shelf.path()] if words[digest] is None else [])
    assert not [name for name in shelf.names() if "json" not in name and not stands]
    shelf.server.add(f"/mae/{WHOLE}.pth", shelf.bodies[WHOLE])
    assert fetch(row).read_bytes() == shelf.bodies[WHOLE]


def test_another_model_under_a_name_is_refused(shelf):
    refused(shelf.row(model="mae_vit_base_patch16", digests={}), "mae_vit_base_patch16")
    assert cached() == []


@pytest.mark.parametrize("damage", ["cut", "record", "both", "registry", "grown"])
def test_a_damaged_file_or_record_is_made_good(shelf, damage, capsys, monkeypatch):
    path = fetch(shelf.row())
    if damage in ("cut", "both"):
        path.write_bytes(path.read_bytes()[:-7])
    if damage in ("record", "both"):
        record_path(path).write_text('{"url": 3')
    if damage == "grown":
        path.write_bytes(path.read_bytes() + b"\0")
    if damage == "registry":  # the list names another file by now
        shelf.server.add(f"/mae/{WHOLE}.pth", shelf.bodies[ALONE])
        shelf.row(contents="encoder", digests={"md5": hashlib.md5(shelf.bodies[ALONE]).hexdigest()})
    damaged = path.read_bytes()
    if damage != "record":
        monkeypatch.setenv("POLYMAE_OFFLINE", "1")
        refused(shelf.row(), "names another digest" if damage == "registry" else "is damaged", "POLYMAE_OFFLINE")
        assert path.read_bytes() == damaged
        monkeypatch.delenv("POLYMAE_OFFLINE")
    capsys.readouterr()
    assert fetch(shelf.row()).read_bytes() == shelf.bodies[ALONE if damage == "registry" else WHOLE]
    assert shelf.gets() == (1 if damage == "record" else 2)
    said = capsys.readouterr().err
    assert ("downloaded again" in said) == (damage != "record")
    assert ("is damaged" in said) == (damage not in ("record", "registry"))
    record = read_record(path)
    assert record is not None
    assert record.hash == content_hash(ENCODER if damage == "registry" else WEIGHTS)


def test_what_another_process_has_just_made_good_is_not_removed(shelf, monkeypatch):
    path = fetch(shelf.row())
    path.write_bytes(b"damaged")
    wait = download.alone

    @contextmanager
    def behind_another(target, *rest):
        with wait(target, *rest) as locked:
            target.write_bytes(shelf.bodies[WHOLE])
            yield locked

    monkeypatch.setattr(download, "alone", behind_another)
    assert fetch(shelf.row()).read_bytes() == shelf.bodies[WHOLE]
    assert shelf.gets() == 1


def test_a_file_that_was_put_there_by_hand_is_verified_and_used(shelf, monkeypatch):
    monkeypatch.setenv("POLYMAE_OFFLINE", "1")
    shelf.path().parent.mkdir(parents=True)
    shelf.path().write_bytes(shelf.bodies[WHOLE])
    assert fetch(shelf.row()) == shelf.path()
    assert read_record(shelf.path()) is not None
    assert not shelf.gets()


def test_a_mirror_takes_the_place_of_the_address(shelf, monkeypatch):
    row = shelf.row()
    for wrong in ("ftp://mirror/mae", "/data/mae", "mirror.example", "http://[::1"):
        monkeypatch.setenv("POLYMAE_MIRROR", wrong)
        refused(row, "POLYMAE_MIRROR", wrong, "http://")
    shelf.server.add(f"/mirror/{WHOLE}.pth", shelf.bodies[WHOLE])
    monkeypatch.setenv("POLYMAE_MIRROR", f"{shelf.server.base}/mirror/")
    assert fetch(row) == shelf.path()
    assert shelf.server.gets == {f"/mirror/{WHOLE}.pth": 1}


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("POLYMAE_HOME", raising=False)
    for shared, expected in (
        ("", ".cache/polymae"),
        ("relative", ".cache/polymae"),
        (str(tmp_path / "x"), "x/polymae"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", shared)
        assert home() == tmp_path / expected
    monkeypatch.setenv("POLYMAE_HOME", "~/mine")
    assert home() == tmp_path / "mine"


def test_a_cache_that_is_a_file(shelf):
    shelf.home.write_text("not a folder")
    refused(shelf.row(), "POLYMAE_HOME", str(shelf.home))
    with pytest.raises(Problem, match="is no folder"):
        cached()


def test_any_url(shelf):
    body = shelf.bodies[WHOLE]
    digits = hashlib.sha256(body).hexdigest()[:8]
    plain = shelf.server.add("/other/mine.pth", body)
    path = fetch_url(f"{plain}?token=secret")
    assert path == fetch_url(f"{plain}?token=secret")
    assert path.name == "mine.pth"
    assert "secret" not in record_path(path).read_text()
    assert fetch_url(shelf.server.add(f"/mine-{digits}.pth", body)).read_bytes() == body
    assert fetch_url(shelf.server.add("/mine-20231114.pth", body)).read_bytes() == body  # a date
    with pytest.raises(Problem, match="sha256 .*expected 0123abcd"):
        fetch_url(shelf.server.add("/mine-0123abcd.pth", body))
    with pytest.raises(Problem, match="web page"):
        fetch_url(shelf.server.add("/page.pth", HTML))
    with pytest.raises(Problem, match="no web address"):
        fetch_url("ftp://there/mine.pth")
    assert len(cached()) == 3
    assert fetch_url(shelf.row().url) == shelf.path()
