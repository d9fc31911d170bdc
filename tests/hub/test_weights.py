"""`polymae weights`, as a person and as a script meet it: the list, downloads, frameworks' own files, verifying, clearing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import children
import pytest
from checkpoints import CONFIG, WEIGHTS
from registered import ALONE, WHOLE, flip, start
from safetensors.numpy import load_file, save_file

from polymae.backends.initial import initial_weights
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.conversion import Wish, convert, prepare
from polymae.convert.provenance import beside
from polymae.convert.targets import is_native
from polymae.convert.writing import official_checkpoint, write_checkpoint
from polymae.files.atomic import alone
from polymae.hub import inventory, native
from polymae.hub.fetch import fetch
from polymae.hub.inventory import cached, verify
from polymae.hub.native import native_file
from polymae.hub.receipts import receipt_path

OFFICIAL = "mae_visualize_vit_base"


def test_only_the_path_is_on_stdout(shelf, weights):
    status, out, err = weights("path", WHOLE)
    assert (status, out) == (2, "")
    assert f"polymae weights download {WHOLE}" in err
    assert weights("download", WHOLE, ALONE)[:2] == (0, f"{shelf.path()}\n{shelf.path(ALONE)}\n")
    for name in (WHOLE, f"{WHOLE}.pth", shelf.row().url):
        assert weights("path", name) == (0, f"{shelf.path()}\n", "")
    assert shelf.gets() == 2


@pytest.mark.parametrize("framework", ["torch", "megengine", "mindspore", "oneflow", "numpy"])
def test_each_framework_gets_its_own_file_converted_once(weights, shelf, framework):
    path = fetch(shelf.row())
    status, out, err = weights("path", WHOLE, "--framework", framework)
    own = Path(out.removesuffix("\n"))
    assert (status, own == path) == (0, framework == "torch")
    assert ("converting" in err) == (own != path)
    checkpoint = open_checkpoint(own)
    assert checkpoint.hash == content_hash(WEIGHTS)
    assert is_native(checkpoint, framework)
    before = own.stat()
    assert weights("download", WHOLE, "--framework", framework) == (0, out, "")
    assert own.stat().st_mtime_ns == before.st_mtime_ns
    assert [one.framework for one in cached()] == ([""] if own == path else ["", framework])
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, receipt_path(path).name}
    assert shelf.gets() == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "stranger", "other"])
def test_a_damaged_converted_file_is_seen_and_made_again(weights, shelf, damage):
    own = native_file(fetch(shelf.row()), "mindspore")
    if damage == "flipped":
        flip(own)
    elif damage == "other":
        beside(own).unlink(missing_ok=True)
        write_checkpoint("mindspore", own, CONFIG, {**WEIGHTS, "cls_token": WEIGHTS["cls_token"] + 1})
    else:
        own.write_bytes(own.read_bytes()[:-1000] if damage == "cut" else b"<!DOCTYPE html><title>Log in</title>")
    assert [one.cached.path for one in verify(cached()) if one.problems] == [own]
    status, out, err = weights("path", WHOLE, "--framework", "mindspore")
    assert (status, out) == (0, f"{own}\n")
    assert "converting" in err
    assert open_checkpoint(own).hash == content_hash(WEIGHTS)
    assert not any(one.problems for one in verify(cached()))


def test_what_an_older_converter_wrote_is_not_used(shelf, monkeypatch):
    path = fetch(shelf.row())
    older = native_file(path, "mindspore")
    monkeypatch.setattr(native, "CONVERTER_VERSION", native.CONVERTER_VERSION + 1)
    newer = native_file(path, "mindspore")
    assert newer != older
    assert [one.path for one in cached()] == [path, older, newer]


def test_the_same_weights_for_another_model_are_converted_anew(shelf, official, tmp_path):
    folder = tmp_path / "folder"  # of the user's own
    convert(prepare(official, Wish()), "huggingface", "shards", folder)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")  # without the provenance
    before = sorted(folder.iterdir())
    first = native_file(folder, "mindspore")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "norm_pix_loss": not told["norm_pix_loss"]}))
    original = open_checkpoint(folder)
    assert original.hash == content_hash(WEIGHTS)  # else the hash would tell
    assert native_file(folder, "mindspore") == first
    assert open_checkpoint(first).config == original.config != CONFIG
    assert sorted(folder.iterdir()) == before  # nothing is written there
    assert [(one.kind, one.name) for one in cached()] == [("converted", "folder")]
    inventory.clear()
    assert shelf.names() == []
    assert official.exists()


def test_a_file_that_does_not_tell_its_model_is_converted_by_hand(weights, shelf, tmp_path):
    config = dataclasses.replace(CONFIG, depth=4)
    official_checkpoint(tmp_path / "own.pth", config, initial_weights(config, seed=1))
    url = shelf.server.add("/own.pth", (tmp_path / "own.pth").read_bytes())
    status, out, err = weights("download", url, "--framework", "mindspore")
    assert (status, out) == (2, "")
    path = weights("path", url)[1].strip()
    assert f"convert_weights mindspore -c {path} -o <place> -m <model>" in err
    assert [one.kind for one in cached()] == ["original"]


def test_four_processes_download_and_convert_once(shelf):
    fetch(shelf.row()).write_bytes(shelf.bodies[WHOLE][:-9])
    shelf.server.gets.clear()
    (shelf.home / "licences-shown.json").unlink()
    started = [start("download", WHOLE, "--framework", "mindspore") for _ in range(4)]
    ended = [(*children.heard(process), process.returncode) for process in started]
    paths = {Path(out.strip()) for out, _, status in ended if status == 0}
    assert len(paths) == 1, ended
    assert [status for *_, status in ended] == [0] * 4
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
        assert "Permission denied" in err
        assert f"convert_weights mindspore -c {path} -o" in err
        missing = start("download", ALONE, unprivileged=True)
        out, err = missing.communicate()
        assert (missing.returncode, out) == (2, "")
        assert "POLYMAE_HOME" in err
        assert "Traceback" not in err
    finally:
        for folder in (path.parent, shelf.home):
            folder.chmod(0o755)
    assert shelf.names() == before
    assert json.loads(receipt_path(path).read_text())["name"] == WHOLE


def test_any_address_can_be_downloaded(shelf, weights):
    url = shelf.server.add("/elsewhere/w.pth", shelf.bodies[WHOLE])
    status, out, _ = weights("download", url, "--framework", "mindspore")
    assert status == 0
    assert Path(out.strip()).name.startswith("w.pth.")
    assert weights("path", url)[0] == 0
    assert url in weights("list")[1]
    assert weights("verify", url)[0] == 0
    assert weights("clear", url)[0] == 0
    assert cached() == []
    assert shelf.names() == []
    assert weights("path", url)[0] == 2


@pytest.mark.parametrize("action", ["path", "download", "verify", "clear"])
@pytest.mark.parametrize("name", ["test_visualise", "test_visualize.pht", "no/such/thing"])
def test_an_unknown_name_gets_the_nearest(weights, shelf, action, name):
    status, out, err = weights(action, name)
    assert (status, out) == (2, "")
    assert "no weights" in err
    assert err.count("polymae weights list") <= 1
    assert (f"Nearest: {WHOLE}" in err) == ("visuali" in name)
    assert "polymae weights list" in err or "URL" in err
    assert not shelf.gets()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clear"], "--all"),
        (["clear", "--all", WHOLE], "--all"),
        (["verify", WHOLE], f"polymae weights download {WHOLE}"),
        (["clear", WHOLE], f"polymae weights download {WHOLE}"),
        (["verify", "vit-mae-base"], "hf cache"),
        (["path", "ftp://there/w.pth"], "http"),
        (["download", WHOLE, "test_pretrian"], ALONE),
        (["path", WHOLE, "--framework", "torhc"], "'torch'"),
        (["list", "nonsense"], "usage: polymae weights list [-h] [--json]"),
        (["download", "visualize"], f"is a kind, of which each model has its own: {OFFICIAL}, "),
        (["download", "hf://mine"], "hf://owner/name"),
        (["download", "hf://a/b/c"], "hf://owner/name"),
        (["clear", "hf://mine/whole"], "hf cache"),
        ([], "ACTION"),
    ],
)
def test_what_cannot_be_done(weights, shelf, words, said):
    status, out, err = weights(*words)
    assert (status, out) == (2, "")
    assert said in err
    assert not shelf.gets()


def test_the_list_says_what_each_holds(weights, shelf):
    weights("download", WHOLE, "--framework", "oneflow")
    status, table, _ = weights("list")
    assert status == 0
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert "encoder and decoder, raw pixels" in lines[OFFICIAL]
    assert "encoder only" in lines["mae_pretrain_vit_large"]
    assert lines["mae_pretrain_vit_base"].split()[1:] == [
        "mae_vit_base_patch16",
        "pretrain",
        *["encoder", "only", "67.8*", "-"],
    ]
    assert "83.7" in lines["mae_finetuned_vit_base"]
    assert "CC-BY-NC 4.0 (not for commercial use, and its authors are to be named): all." in table
    assert max(map(len, table.partition("\nIn ")[0].splitlines())) <= 120
    assert lines[WHOLE].endswith("yes")
    assert lines[ALONE].endswith("-")
    assert f"converted for oneflow: {WHOLE}" in table
    said = json.loads(weights("list", "--json")[1])
    rows = {row["name"]: row for row in said["published"]}
    assert rows[WHOLE]["cached"] == str(shelf.path())
    assert rows[ALONE]["cached"] is None
    assert rows["mae_finetuned_vit_huge"]["digests"] == {"md5": "2541f2"}
    assert [one["kind"] for one in said["cached"]] == ["original", "converted"]
    assert said["cached"][0]["record"]["hash"] == content_hash(WEIGHTS)


def test_verify_prints_full_digests_and_sees_a_flipped_byte(weights, shelf):
    found = weights("download", WHOLE, "--framework", "mindspore")[1].strip()
    status, out, _ = weights("verify")
    body = shelf.bodies[WHOLE]
    assert status == 0
    for digest in (hashlib.md5(body).hexdigest(), hashlib.sha256(body).hexdigest(), content_hash(WEIGHTS)):
        assert digest in out
    assert out.count("right") == 2
    for path in (shelf.path(), Path(found)):
        before = path.read_bytes()
        flip(path)
        status, out, _ = weights("verify", WHOLE)
        assert status == 1
        assert (out.count("WRONG"), out.count("right")) == (1, 1)
        rows = json.loads(weights("verify", "--json")[1])
        assert [row["path"] for row in rows if row["problems"]] == [str(path)]
        path.write_bytes(before)
    assert weights("verify", WHOLE)[0] == 0


def test_verify_compares_with_the_record_and_the_registry(weights, shelf):
    weights("download", WHOLE)
    right = hashlib.md5(shelf.bodies[WHOLE]).hexdigest()
    nearly = right[:5] + ("0" if right[5] != "0" else "1")
    shelf.row(digests={"md5": nearly})
    status, out, _ = weights("verify", WHOLE)
    assert status == 1
    assert f"md5 {right}, expected {nearly}... (published)" in out
    shelf.row(digests={"md5": right.upper()})
    assert weights("verify", WHOLE)[0] == 0
    shelf.row(digests={})
    record = json.loads(receipt_path(shelf.path()).read_text())
    for field, value in (("sha256", "0" * 64), ("hash", "0" * 64), ("bytes", 3)):
        receipt_path(shelf.path()).write_text(json.dumps({**record, field: value}))
        status, out, _ = weights("verify", WHOLE)
        assert status == 1
        assert f"{field} {record[field]}, downloaded with {value}" in out
    receipt_path(shelf.path()).write_text(json.dumps(record))
    assert weights("verify", WHOLE)[0] == 0


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


def foreign(home):
    """Files that are not ours, in and beside our folders."""
    inside = home / "weights"
    made = [inside / "notes.txt", inside / "mine.pth", inside / f"{WHOLE}.pth.bak", home / "mine.json"]
    made += [inside / "0123456789ab" / "mine.pth", inside / "mine" / "w.pth", home / "converted" / "mine.ckpt"]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    return sorted(str(path.relative_to(home)) for path in made)


def test_clear_removes_what_is_meant_and_nothing_else(weights, shelf, tmp_path):
    ours = ["licences-shown.json", *(f"weights/{n}.pth{end}" for n in (ALONE, WHOLE) for end in ("", ".source.json"))]
    weights("download", WHOLE, ALONE, "--framework", "mindspore")
    (shelf.home / "weights" / f".{WHOLE}.pth.polymae-part").write_bytes(b"half")
    (shelf.home / "weights" / f".{WHOLE}.pth.polymae-lock").write_bytes(b"")
    strange = foreign(shelf.home)
    (tmp_path / "shared").mkdir()
    for name in ("w.pth", "w.pth.source.json"):
        (tmp_path / "shared" / name).write_text("mine")
    (shelf.home / "weights" / "ba9876543210").symlink_to(tmp_path / "shared")
    status, out, _ = weights("clear", "--converted")
    assert status == 0
    assert out.count("removed") == out.count(".mindspore.ckpt") >= 2
    half = [f"weights/.{WHOLE}.pth.polymae-part"]
    assert set(shelf.names()) - {f"weights/.{WHOLE}.pth.polymae-lock"} == {*ours, *strange, *half}
    assert weights("clear", WHOLE)[0] == 0
    assert set(shelf.names()) == {*strange, *(name for name in ours if WHOLE not in name)}
    status, out, _ = weights("clear", "--all")
    assert status == 0
    assert "MB freed" in out
    assert shelf.names() == strange
    assert len(list((tmp_path / "shared").iterdir())) == 2
    assert (weights("clear", "--all")[0], shelf.names() == strange) == (0, True)


def test_copies_are_cleared_by_the_name_of_an_original_that_is_gone(weights, shelf):
    weights("download", WHOLE, "--framework", "mindspore")
    shelf.path().unlink()
    receipt_path(shelf.path()).unlink()
    assert [(one.kind, one.name) for one in cached()] == [("converted", WHOLE)]
    assert weights("clear", WHOLE)[0] == 0
    assert shelf.names() == ["licences-shown.json"]


def test_clear_all_leaves_what_was_put_there_by_hand(weights, shelf):
    shelf.path().parent.mkdir(parents=True)
    shelf.path().write_bytes(b"years of work")
    assert weights("clear", "--all")[0] == 0
    assert shelf.path().exists()
    assert weights("clear", WHOLE)[0] == 0
    assert not shelf.path().exists()


def test_clear_leaves_what_another_process_is_writing(weights, shelf, monkeypatch):
    weights("download", WHOLE)
    monkeypatch.setattr(inventory, "_PATIENCE", 0.1)
    with alone(shelf.path()):
        status, out, err = weights("clear", "--all")
    assert (status, out) == (2, "")
    assert "Another process is writing" in err
    assert shelf.path().exists()
    assert weights("clear", "--all")[0] == 0
    assert shelf.names() == []
