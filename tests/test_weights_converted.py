"""Weights as each framework's own file: converted once, made again where damaged, by one process at a time."""

from __future__ import annotations

import json
from pathlib import Path

import children
import pytest
from checkpoints import CONFIG, WEIGHTS
from registered import ALONE, WHOLE, shelf_of_weights, start  # noqa: F401  (fixture)
from safetensors.numpy import load_file, save_file
from server import web_server  # noqa: F401  (fixture)

from polymae.convert import writing
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.conversion import Wish, convert, prepare
from polymae.convert.provenance import beside
from polymae.convert.targets import is_native
from polymae.convert.writing import write_checkpoint
from polymae.hub import native as converted
from polymae.hub.fetch import fetch, native
from polymae.hub.inventory import cached, clear, verify
from polymae.hub.receipts import record_path

HTML = b"<!DOCTYPE html><title>Log in to the network</title>"


@pytest.mark.parametrize("framework", ["torch", "megengine", "mindspore", "oneflow", "numpy"])
def test_each_framework_gets_its_own_file_converted_once(shelf, framework, capsys):
    path = fetch(shelf.row())
    found = native(path, framework)
    assert (found == path) == (framework in ("torch", "numpy"))
    checkpoint = open_checkpoint(found)
    assert checkpoint.hash == content_hash(WEIGHTS)
    assert found == path or is_native(checkpoint, framework)
    assert found.parent == path.parent
    before = found.stat()
    assert native(path, framework) == found
    assert found.stat().st_mtime_ns == before.st_mtime_ns
    assert capsys.readouterr().err.count("converting") == (found != path)
    assert {one.framework for one in cached()} == ({"", framework} if found != path else {""})


@pytest.mark.parametrize("damage", ["flipped", "cut", "stranger", "provenance"])
def test_a_damaged_converted_file_is_made_again(shelf, damage, capsys):
    found = native(fetch(shelf.row()), "mindspore")
    body = bytearray(found.read_bytes())
    if damage == "flipped":
        body[len(body) // 2] ^= 1
    found.write_bytes({"cut": body[:-1000], "stranger": HTML}.get(damage, body))
    if damage == "provenance":
        beside(found).unlink(missing_ok=True)
        write_checkpoint("mindspore", found, CONFIG, {**WEIGHTS, "cls_token": WEIGHTS["cls_token"] + 1})
    (wrong,) = [one for one in verify(cached()) if one.problems]
    assert wrong.cached.path == found
    assert native(shelf.path(), "mindspore") == found
    assert "made again" in capsys.readouterr().err
    assert open_checkpoint(found).hash == content_hash(WEIGHTS)
    assert not any(one.problems for one in verify(cached()))


def test_what_an_older_converter_wrote_is_replaced(shelf, monkeypatch):
    path = fetch(shelf.row())
    older = {native(path, framework) for framework in ("mindspore", "oneflow")}
    monkeypatch.setattr(converted, "CONVERTER_VERSION", writing.CONVERTER_VERSION + 1)
    newer = native(path, "mindspore")
    assert f".v{writing.CONVERTER_VERSION + 1}." in newer.name
    assert not [one for one in older if one.exists() or beside(one).exists()]
    assert [one.path for one in cached()] == [path, newer]


def test_nothing_is_written_beside_a_file_of_the_users_own(shelf, official):
    found = native(official, "megengine")
    assert list(official.parent.iterdir()) == [official]
    assert found.is_relative_to(shelf.home / "converted")
    clear()
    assert not found.exists()
    assert official.exists()


def test_the_same_weights_for_another_model_are_converted_anew(shelf, official, tmp_path):
    folder = tmp_path / "folder"
    convert(prepare(official, Wish()), "huggingface", "shards", folder)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")  # without the provenance
    first = native(folder, "mindspore")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "norm_pix_loss": not told["norm_pix_loss"]}))
    original = open_checkpoint(folder)
    assert original.hash == content_hash(WEIGHTS)  # else the hash would tell
    assert native(folder, "mindspore") == first
    assert open_checkpoint(first).config == original.config != CONFIG


@pytest.mark.parametrize("before", ["nothing", "a damaged file"])
def test_eight_processes_download_and_convert_once(shelf, before):
    if before != "nothing":
        fetch(shelf.row()).write_bytes(shelf.bodies[WHOLE][:-9])
        shelf.server.gets.clear()
        (shelf.home / "licences-shown.json").unlink()
    started = [start("download", WHOLE, "--framework", "mindspore") for _ in range(8)]
    ended = [(*children.heard(process), process.returncode) for process in started]
    paths = {Path(out.strip()) for out, _, status in ended if status == 0}
    assert len(paths) == 1, ended
    assert [status for *_, status in ended] == [0] * 8
    assert shelf.server.gets == {f"/mae/{WHOLE}.pth": 1}
    said = "".join(err for _, err, _ in ended)
    assert said.count("converting") == said.count("CC-BY-NC") == 1
    assert open_checkpoint(paths.pop()).hash == content_hash(WEIGHTS)
    assert not any(one.problems for one in verify(cached()))
    assert not [name for name in shelf.names() if "polymae-" in name]


def test_a_cache_that_may_only_be_read(shelf):
    path = fetch(shelf.row())
    before = shelf.names()
    for folder in (path.parent, shelf.home):
        folder.chmod(0o555)
    try:
        found = start("path", WHOLE, unprivileged=True)
        assert (found.communicate()[0].strip(), found.returncode) == (str(path), 0)
        code = start("path", WHOLE, "--framework", "mindspore", unprivileged=True)
        out, err = code.communicate()
        assert (code.returncode, out) == (2, "")
        assert "may not be written to" in err
        missing = start("download", ALONE, unprivileged=True)
        out, err = missing.communicate()
        assert (missing.returncode, out) == (2, "")
        assert "POLYMAE_HOME" in err
        assert "Traceback" not in err
    finally:
        for folder in (path.parent, shelf.home):
            folder.chmod(0o755)
    assert shelf.names() == before
    assert json.loads(record_path(path).read_text())["name"] == WHOLE
