"""The cache of weights: which files are kept, which are refused, and that it is right after everything that can go wrong."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from contextlib import contextmanager

import pytest
from checkpoints import CONFIG, ENCODER, MODEL, WEIGHTS
from registered import ALONE, WHOLE, flip

from polymae.backends.initial import initial_weights
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.hub import download, load
from polymae.hub import fetch as fetching
from polymae.hub.fetch import fetch, fetch_url, kept
from polymae.hub.inventory import cached, verify
from polymae.hub.native import native_file
from polymae.hub.part_file import PartFile
from polymae.hub.receipts import explaining, home, place, read_receipt, receipt_path
from polymae.hub.resolve import remote

HTML = b"<!DOCTYPE html><title>Log in to the network</title>"


def refused(work, *words):
    """Have something refused, with these words in its message."""
    with pytest.raises(Problem) as raised:
        work()
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
    body, receipt = shelf.bodies[WHOLE], read_receipt(shelf.path())
    assert receipt is not None
    assert (receipt.bytes, receipt.name) == (len(body), WHOLE)
    assert (receipt.md5, receipt.sha256) == (hashlib.md5(body).hexdigest(), hashlib.sha256(body).hexdigest())
    assert receipt.hash == content_hash(WEIGHTS)
    assert receipt.url == shelf.row().url
    shelf.server.http.server_close()
    monkeypatch.setenv("POLYMAE_OFFLINE", "1")
    assert fetch(shelf.row()) == kept(shelf.row()) == shelf.path()


def wrong_bodies(shelf, tmp_path):
    """What a server may send in place of the file, and the words for it without and with a published digest."""
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
        "html": (HTML, "HTML page", "HTML page"),
        "compressed": (gzip.compress(body), "compressed with gzip", "compressed with gzip"),
    }


@pytest.mark.parametrize("kind", ["encoder", "flipped", "other", "cut", "html", "compressed"])
@pytest.mark.parametrize("digest", [False, True])
def test_another_file_never_enters_the_cache(shelf, kind, digest, tmp_path):
    body, *words = wrong_bodies(shelf, tmp_path)[kind]
    row = shelf.row() if digest else shelf.row(digests={})
    shelf.server.add(f"/mae/{WHOLE}.pth", body, headers={"Content-Encoding": "gzip"} if kind == "compressed" else {})
    if words[digest] is None:  # nothing is published by which it could be known
        assert fetch(row).read_bytes() == body
        row = shelf.row(digests={"sha256": hashlib.sha256(shelf.bodies[WHOLE]).hexdigest()})
    stands = [one.path for one in cached()]
    said = refused(lambda: fetch(row), words[digest] or "sha256", "POLYMAE_MIRROR", row.name)
    assert ".polymae-part" not in said
    assert [one.path for one in cached()] == stands == ([shelf.path()] if words[digest] is None else [])
    assert not [name for name in shelf.names() if "json" not in name and not stands]
    shelf.server.add(f"/mae/{WHOLE}.pth", shelf.bodies[WHOLE])
    assert fetch(row).read_bytes() == shelf.bodies[WHOLE]


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [({"depth": 4}, "blocks.3"), ({"mlp_ratio": 3.0}, "blocks.0")],
    ids=["depth", "width"],
)
def test_another_model_is_refused_by_its_name_or_by_its_tensors(shelf, changes, tensor, tmp_path):
    row = shelf.row(model="mae_vit_base_patch16", digests={})
    refused(lambda: fetch(row), "mae_vit_base_patch16")
    config = dataclasses.replace(CONFIG, **changes)
    official_checkpoint(tmp_path / "other.pth", config, initial_weights(config, seed=1))
    shelf.server.add(f"/mae/{WHOLE}.pth", (tmp_path / "other.pth").read_bytes())
    assert open_checkpoint(tmp_path / "other.pth").model is None  # else its name would tell
    row = shelf.row(model="mae_vit_test_patch8", digests={})
    refused(lambda: fetch(row), "is not the checkpoint that was expected", tensor)
    assert cached() == []


@pytest.mark.parametrize("damage", ["cut", "receipt", "both", "registry", "grown"])
def test_a_damaged_file_or_receipt_is_made_good(shelf, damage, capsys, monkeypatch):
    path = fetch(shelf.row())
    if damage in ("cut", "both"):
        path.write_bytes(path.read_bytes()[:-7])
    if damage in ("receipt", "both"):
        receipt_path(path).write_text('{"url": 3')
    if damage == "grown":
        path.write_bytes(path.read_bytes() + b"\0")
    if damage == "registry":  # the list names another file by now
        shelf.server.add(f"/mae/{WHOLE}.pth", shelf.bodies[ALONE])
        shelf.row(contents="encoder", digests={"md5": hashlib.md5(shelf.bodies[ALONE]).hexdigest()})
    damaged = path.read_bytes()
    if damage != "receipt":
        monkeypatch.setenv("POLYMAE_OFFLINE", "1")
        word = "names another digest" if damage == "registry" else "is damaged"
        refused(lambda: fetch(shelf.row()), word, "POLYMAE_OFFLINE")
        assert path.read_bytes() == damaged
        monkeypatch.delenv("POLYMAE_OFFLINE")
    capsys.readouterr()
    assert fetch(shelf.row()).read_bytes() == shelf.bodies[ALONE if damage == "registry" else WHOLE]
    assert shelf.gets() == (1 if damage == "receipt" else 2)
    said = capsys.readouterr().err
    assert ("downloaded again" in said) == (damage != "receipt")
    assert ("is damaged" in said) == (damage not in ("receipt", "registry"))
    receipt = read_receipt(path)
    assert receipt is not None
    assert receipt.hash == content_hash(ENCODER if damage == "registry" else WEIGHTS)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", ["404", "none", "wrong"])
@pytest.mark.parametrize("why", ["list", "damaged"])
def test_the_old_file_stays_until_the_new_one_is_verified(shelf, why, answer):
    path = fetch(shelf.row())
    if why == "damaged":
        path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes(), receipt_path(path).read_bytes()
    row = shelf.row() if why == "damaged" else shelf.row(digests={"md5": "012345"})
    if answer == "wrong":
        shelf.server.add(f"/mae/{WHOLE}.pth", shelf.bodies[ALONE])
    elif answer == "404":
        shelf.server.files.clear()
    else:
        shelf.server.http.server_close()
    said = refused(lambda: fetch(row), "It stays there", "is damaged" if why == "damaged" else "names another digest")
    assert ("damaged" in said) == (why == "damaged")
    assert (path.read_bytes(), receipt_path(path).read_bytes()) == before
    assert not [name for name in shelf.names() if "part" in name or "lock" in name]


@pytest.mark.parametrize("stop", ["receipt", "place"])
@pytest.mark.parametrize("before", ["nothing", "another"])
def test_a_process_that_is_killed_leaves_nothing_that_is_taken_for_something_else(shelf, before, stop, monkeypatch):
    """Killed while a file is put in its place: the next time is right, without another download if that can be."""
    body = shelf.bodies[WHOLE]
    if before == "another":
        fetch(shelf.row())
        official_checkpoint(shelf.home.parent / "other.pth", CONFIG, {name: -array for name, array in WEIGHTS.items()})
        body = (shelf.home.parent / "other.pth").read_bytes()
        shelf.server.add(f"/mae/{WHOLE}.pth", body)
    row = shelf.row(digests={"md5": hashlib.md5(body).hexdigest()[:6]})

    def killed(*args):
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(*((PartFile, "put_in_place") if stop == "place" else (fetching, "write_receipt")), killed)
        with pytest.raises(SystemExit):
            fetch(row)
    receipt = read_receipt(shelf.path())
    assert (receipt and receipt.md5) == (hashlib.md5(shelf.bodies[WHOLE]).hexdigest() if before == "another" else None)
    gets = shelf.gets()
    assert fetch(row).read_bytes() == body
    assert shelf.gets() == gets + ((before, stop) == ("another", "receipt"))
    assert not any(one.problems for one in verify(cached()))


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


@pytest.mark.parametrize("how", ["cut", "another", "nonsense"])
def test_a_file_that_was_put_there_by_hand_is_used_if_it_is_right_and_else_not_touched(shelf, how, monkeypatch):
    path, body = shelf.path(), shelf.bodies[WHOLE]
    path.parent.mkdir(parents=True)
    path.write_bytes({"cut": body[:-1000], "another": shelf.bodies[ALONE], "nonsense": b"years of work"}[how])
    before = path.read_bytes()
    said = refused(lambda: fetch(shelf.row()), str(path), "put there by hand", "left as it is")
    assert "serves" not in said
    assert "127.0.0.1" not in said
    assert path.read_bytes() == before
    assert shelf.names() == [f"weights/{WHOLE}.pth"]
    path.write_bytes(body)  # the copy has ended
    monkeypatch.setenv("POLYMAE_OFFLINE", "1")
    assert fetch(shelf.row()) == path
    assert read_receipt(path) is not None
    assert not shelf.gets()


@pytest.mark.parametrize("where", ["list", "URL"])
def test_a_flipped_byte_is_met_with_what_to_type(shelf, where):
    url = shelf.server.add("/w.pth", shelf.bodies[WHOLE])
    path = fetch(shelf.row()) if where == "list" else fetch_url(url)
    flip(path)
    weights, name = (WHOLE, WHOLE) if where == "list" else (url, path)
    for use in (lambda: load(MODEL, "numpy", weights=weights), lambda: native_file(path, "mindspore")):
        said = refused(use, "was damaged after it had been downloaded", f"weights clear {name}`")
        assert "opy it again" not in said


def test_any_other_problem_is_left_as_it_is(shelf):
    path = fetch(shelf.row())
    for file in (path, shelf.home.parent / "none.pth"):
        with pytest.raises(Problem, match="^something else$"), explaining(file):
            raise Problem("something else")


def test_a_mirror_takes_the_place_of_the_address_and_is_offered_where_it_helps(shelf, monkeypatch):
    row, url = shelf.row(), f"{shelf.server.base}/nowhere.pth"
    for wrong in ("ftp://mirror/mae", "/data/mae", "mirror.example", "http://[::1"):
        monkeypatch.setenv("POLYMAE_MIRROR", wrong)
        refused(lambda: fetch(row), "POLYMAE_MIRROR", wrong, "http://")
    monkeypatch.delenv("POLYMAE_MIRROR")
    shelf.server.files.clear()
    assert "POLYMAE_MIRROR=<address>" in refused(lambda: fetch(row), "404")
    assert "MIRROR" not in refused(lambda: fetch_url(url), "404", "by its path")
    monkeypatch.setenv("POLYMAE_MIRROR", f"{shelf.server.base}/mirror/?sig=hush")
    said = refused(lambda: fetch(row), "404", "the server of POLYMAE_MIRROR", row.url, "/mirror/")
    assert "hush" not in said
    assert shelf.server.seen[-1] == f"/mirror/{WHOLE}.pth?sig=hush"
    shelf.server.add(f"/mirror/{WHOLE}.pth", shelf.bodies[WHOLE])
    assert fetch(row) == shelf.path()
    assert shelf.server.gets == {f"/mirror/{WHOLE}.pth": 1}
    assert remote(WHOLE).kept() == shelf.path()


def test_where_the_cache_is(shelf, monkeypatch, tmp_path):
    shelf.home.write_text("not a folder")
    refused(lambda: fetch(shelf.row()), "POLYMAE_HOME", str(shelf.home))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("POLYMAE_HOME")
    for shared, expected in (
        ("", ".cache/polymae"),
        ("relative", ".cache/polymae"),
        (str(tmp_path / "x"), "x/polymae"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", shared)
        assert home() == tmp_path / expected
    monkeypatch.setenv("POLYMAE_HOME", "~/mine")
    assert home() == tmp_path / "mine"


def test_any_url(shelf):
    body = shelf.bodies[WHOLE]
    plain = shelf.server.add("/other/mine.pth", body)
    path = fetch_url(f"{plain}?token=secret")
    assert path == fetch_url(f"{plain}?token=secret") == fetch_url(plain.replace("//", "//me:secret@"))
    assert path.name == "mine.pth"
    assert shelf.server.gets["/other/mine.pth"] == 1
    assert "secret" not in receipt_path(path).read_text()
    refused(lambda: fetch_url(shelf.server.add("/page.pth", HTML, kind="text/html")), "web page")
    assert len(cached()) == 1
    assert fetch_url(shelf.row().url) == shelf.path()


def test_only_eight_digits_in_a_name_are_a_digest(shelf):
    digits = hashlib.sha256(shelf.bodies[WHOLE]).hexdigest()
    for right in (digits[:8], "0123abc", "0123abcde", "0123456789abcdef0123456789abcdef01234567", "20231114"):
        assert fetch_url(shelf.server.add(f"/w-{right}.pth", shelf.bodies[WHOLE])).is_file()
    url = shelf.server.add("/w-0123abcd.pth", shelf.bodies[WHOLE])
    words = f"sha256 {digits}, expected 0123abcd", "its name says", "torch.hub", "its path"
    said = refused(lambda: fetch_url(url), *words)
    assert "POLYMAE_MIRROR" not in said
    assert "project" not in said


def test_files_of_one_name_from_two_sources_do_not_meet(shelf):
    said = json.loads(shelf.registry.read_text())
    said["sources"]["another"] = {**said["sources"]["official"], "url": f"{shelf.server.base}/another/"}
    (whole, alone) = said["checkpoints"]
    digests = {"md5": hashlib.md5(shelf.bodies[ALONE]).hexdigest()}
    said["checkpoints"].append(
        {**alone, "name": "mine", "source": "another", "path": whole["path"], "digests": digests}
    )
    shelf.registry.write_text(json.dumps(said))
    shelf.server.add(f"/another/{WHOLE}.pth", shelf.bodies[ALONE])
    for _ in range(2):
        assert fetch(shelf.row()).read_bytes() == shelf.bodies[WHOLE]
        assert fetch(shelf.row("mine")).read_bytes() == shelf.bodies[ALONE]
    assert shelf.gets() == 2
    assert {one.name for one in cached()} == {WHOLE, "mine"}


def test_the_query_is_part_of_an_address_unless_it_is_a_signature(shelf):
    first, second = (f"https://host/w.pth?id={number}" for number in (1, 2))
    assert place(first) != place(second)
    for signed in (
        f"{first}&X-Amz-Signature=1f&X-Amz-Date=2", f"{first}&Expires=3&Signature=4&Key-Pair-Id=5&Policy=6",
        f"{first}&AWSAccessKeyId=7", f"{first}&token=8", f"{first}&se=2026&sp=r&sv=9&sr=b&sig=10", f"{first}#part",
        first.replace("host", "me:word@host"), f"{first}&X-Goog-Expires=11",
    ):  # fmt: skip
        assert place(signed) == place(first), signed
    assert place(f"{first}&sv=1") != place(f"{first}&sv=2")  # Azure's only where there is a signature
    shelf.server.add("/w.pth", shelf.bodies[WHOLE])
    base = f"{shelf.server.base}/w.pth?id="
    one = fetch_url(f"{base}1&X-Amz-Signature=1f")
    assert fetch_url(f"{base}1&X-Amz-Signature=2e") == one
    shelf.server.add("/w.pth", shelf.bodies[ALONE])
    two = fetch_url(f"{base}2")
    assert (one.read_bytes(), two.read_bytes()) == (shelf.bodies[WHOLE], shelf.bodies[ALONE])
    assert shelf.server.gets["/w.pth"] == 2
