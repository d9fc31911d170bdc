"""`polymae weights` on files that are damaged, unfinished, of one name, or somebody else's."""

from __future__ import annotations

import json

import pytest
from registered import ALONE, WHOLE, shelf_of_weights, weights_command  # noqa: F401  (fixtures)
from server import web_server  # noqa: F401  (fixture)

from polymae.hub.inventory import cached


def test_what_is_said_of_a_damaged_file_and_of_an_unfinished_one(weights, shelf):
    weights("download", WHOLE)
    shelf.path().write_bytes(shelf.bodies[WHOLE][:-3])
    status, out, err = weights("path", WHOLE)
    assert (status, out) == (2, "")
    assert f"{shelf.path()} is damaged" in err
    assert "not in the cache" not in err
    assert f"polymae weights download {WHOLE}" in err
    half = shelf.path().with_name(f".{ALONE}.pth.polymae-part")
    half.write_bytes(b"half")
    status, out, _ = weights("verify", ALONE)
    assert (status, out) == (0, f"{half}\n    -----  unfinished, {ALONE}\n")
    assert [row["kind"] for row in json.loads(weights("verify", "--json")[1])] == ["unfinished", "original"]


@pytest.mark.parametrize("words", ["list", "path x", "download x", "verify", "clear --all", "clear --converted"])
def test_a_home_that_is_a_file(weights, shelf, words):
    assert weights("verify") == (0, "", f"nothing is kept in {shelf.home}\n")
    shelf.home.write_text("mine")
    status, out, err = weights(*words.replace("x", WHOLE).split())
    assert (status, out) == (2, "")
    assert f"{shelf.home} is no folder" in err
    assert "POLYMAE_HOME" in err
    assert shelf.home.read_text() == "mine"


def test_files_of_one_name_are_told_apart(weights, shelf):
    urls = [shelf.server.add(f"/{place}/w.pth", shelf.bodies[WHOLE]) for place in ("here", "there")]
    places = weights("download", *urls)[1].split()
    status, out, err = weights("clear", "w.pth")
    assert (status, out) == (2, "")
    assert all(word in err for word in (*urls, *places))
    assert weights("clear", urls[0])[0] == 0
    assert [str(one.path) for one in cached()] == places[1:]
    weights("download", *urls)
    assert weights("clear", places[0])[0] == 0
    assert weights("clear", "w.pth")[0] == 0
    assert cached() == []


def test_clear_all_leaves_what_was_put_there_by_hand(weights, shelf):
    shelf.path().parent.mkdir(parents=True)
    shelf.path().write_bytes(b"years of work")
    assert weights("clear", "--all")[0] == 0
    assert shelf.path().exists()
    assert weights("clear", WHOLE)[0] == 0
    assert not shelf.path().exists()
