"""What is in the cache stays until something better is there; files of one name do not meet; who damaged what is said."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import pytest
from checkpoints import CONFIG, WEIGHTS
from downloads import quick  # noqa: F401  (fixture)
from registered import ALONE, WHOLE, shelf_of_weights  # noqa: F401  (fixture)
from server import web_server  # noqa: F401  (fixture)

from polymae.backends.initial import initial_weights
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.writing import official_checkpoint
from polymae.files.errors import Problem
from polymae.hub import fetch as fetching
from polymae.hub.fetch import explaining, fetch, fetch_url, native
from polymae.hub.inventory import cached, verify
from polymae.hub.part_file import Partial
from polymae.hub.receipts import place, read_record, record_path
from polymae.hub.resolve import remote


def refused(work, *words):
    """Have something refused, with these words in its message."""
    with pytest.raises(Problem) as raised:
        work()
    for word in words:
        assert word in str(raised.value)
    return str(raised.value)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", ["404", "none", "wrong"])
@pytest.mark.parametrize("why", ["list", "damaged"])
def test_the_old_file_stays_until_the_new_one_is_verified(shelf, why, answer):
    path = fetch(shelf.row())
    if why == "damaged":
        path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes(), record_path(path).read_bytes()
    row = shelf.row() if why == "damaged" else shelf.row(digests={"md5": "012345"})
    if answer == "wrong":
        shelf.server.add(f"/mae/{WHOLE}.pth", shelf.bodies[ALONE])
    elif answer == "404":
        shelf.server.files.clear()
    else:
        shelf.server.http.server_close()
    said = refused(lambda: fetch(row), "It stays there", "is damaged" if why == "damaged" else "names another digest")
    assert ("damaged" in said) == (why == "damaged")
    assert (path.read_bytes(), record_path(path).read_bytes()) == before
    assert not [name for name in shelf.names() if "part" in name or "lock" in name]


@pytest.mark.parametrize("stop", ["record", "place"])
def test_no_moment_has_a_file_with_the_record_of_another(shelf, stop, monkeypatch):
    """Killed while a file is replaced: what stands there is known for what it is, and the next time is right."""
    path = fetch(shelf.row())
    other = {name: -array for name, array in WEIGHTS.items()}
    official_checkpoint(shelf.home.parent / "other.pth", CONFIG, other)
    body = (shelf.home.parent / "other.pth").read_bytes()
    shelf.server.add(f"/mae/{WHOLE}.pth", body)
    row = shelf.row(digests={"md5": hashlib.md5(body).hexdigest()[:6]})

    def killed(*args):
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(*((Partial, "put_in_place") if stop == "place" else (fetching, "write_record")), killed)
        with pytest.raises(SystemExit):
            fetch(row)
    record = read_record(path)
    assert record is not None
    assert record.md5 == hashlib.md5(shelf.bodies[WHOLE]).hexdigest()
    assert fetch(row).read_bytes() == body
    assert not any(one.problems for one in verify(cached()))


@pytest.mark.parametrize("how", ["cut", "another", "nonsense"])
def test_what_somebody_copies_into_the_cache_is_not_touched(shelf, how):
    path, body = shelf.path(), shelf.bodies[WHOLE]
    path.parent.mkdir(parents=True)
    path.write_bytes({"cut": body[:-1000], "another": shelf.bodies[ALONE], "nonsense": b"years of work"}[how])
    before = path.read_bytes()
    said = refused(lambda: fetch(shelf.row()), str(path), "put there by hand", "left as it is")
    assert "serves" not in said
    assert "127.0.0.1" not in said
    assert path.read_bytes() == before
    assert not shelf.gets()
    assert shelf.names() == [f"weights/{WHOLE}.pth"]
    path.write_bytes(body)  # the copy has ended
    assert fetch(shelf.row()) == path
    assert not shelf.gets()


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


def test_only_eight_digits_in_a_name_are_a_digest(shelf):
    for digits in ("0123abc", "0123abcde", "0123456789abcdef0123456789abcdef01234567", "20231114"):
        assert fetch_url(shelf.server.add(f"/w-{digits}.pth", shelf.bodies[WHOLE])).is_file()
    url = shelf.server.add("/w-0123abcd.pth", shelf.bodies[WHOLE])
    said = refused(lambda: fetch_url(url), "expected 0123abcd", "its name says", "torch.hub", "its path")
    assert "POLYMAE_MIRROR" not in said
    assert "project" not in said


def flip(path, keep_time=False):
    body, before = bytearray(path.read_bytes()), path.stat()
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("where", ["list", "URL"])
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_a_flipped_byte_is_met_with_what_to_type(shelf, framework, where):
    url = shelf.server.add("/w.pth", shelf.bodies[WHOLE])
    path = fetch(shelf.row()) if where == "list" else fetch_url(url)
    flip(path)

    def use():
        with explaining(path):
            open_checkpoint(native(path, framework)).weights(CONFIG)

    said = refused(
        use, "was damaged after it had been downloaded", f"weights clear {WHOLE if where == 'list' else path}`"
    )
    assert "opy it again" not in said


def test_any_other_problem_is_left_as_it_is(shelf):
    path = fetch(shelf.row())
    for file in (path, shelf.home.parent / "none.pth"):
        with pytest.raises(Problem, match="^something else$"), explaining(file):
            raise Problem("something else")


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [({"depth": 4}, "blocks.3"), ({"mlp_ratio": 3.0}, "blocks.0")],
    ids=["depth", "width"],
)
def test_a_model_of_no_name_is_not_taken_for_the_rows(shelf, changes, tensor, tmp_path):
    config = dataclasses.replace(CONFIG, **changes)
    official_checkpoint(tmp_path / "other.pth", config, initial_weights(config, seed=1))
    shelf.server.add(f"/mae/{WHOLE}.pth", (tmp_path / "other.pth").read_bytes())
    assert open_checkpoint(tmp_path / "other.pth").model is None  # else its name would tell
    refused(lambda: fetch(shelf.row(digests={})), "is not the checkpoint that was expected", tensor)


def test_a_mirror_is_named_where_it_was_asked_and_offered_where_it_helps(shelf, monkeypatch):
    row, url = shelf.row(), f"{shelf.server.base}/nowhere.pth"
    shelf.server.files.clear()
    assert "POLYMAE_MIRROR=<address>" in refused(lambda: fetch(row), "404")
    assert "MIRROR" not in refused(lambda: fetch_url(url), "404", "by its path")
    monkeypatch.setenv("POLYMAE_MIRROR", f"{shelf.server.base}/mirror?sig=hush")
    said = refused(lambda: fetch(row), "404", "the server of POLYMAE_MIRROR", row.url, "/mirror/")
    assert "hush" not in said
    assert shelf.server.seen[-1] == f"/mirror/{WHOLE}.pth?sig=hush"
    shelf.server.add(f"/mirror/{WHOLE}.pth", shelf.bodies[WHOLE])
    assert fetch(row) == shelf.path()
    assert remote(WHOLE).kept() == shelf.path()
