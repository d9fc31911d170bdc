"""`polymae weights`, as a person and as a script meet it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from checkpoints import WEIGHTS
from registered import ALONE, WHOLE, shelf_of_weights, weights_command  # noqa: F401  (fixtures)
from server import web_server  # noqa: F401  (fixture)

from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.files.atomic import alone
from polymae.hub import inventory
from polymae.hub.inventory import cached
from polymae.hub.receipts import record_path

OFFICIAL = "mae_visualize_vit_base"


def test_only_the_path_is_on_stdout(shelf, weights):
    status, out, err = weights("path", WHOLE)
    assert (status, out) == (2, "")
    assert f"polymae weights download {WHOLE}" in err
    assert weights("download", WHOLE, ALONE)[:2] == (0, f"{shelf.path()}\n{shelf.path(ALONE)}\n")
    for name in (WHOLE, f"{WHOLE}.pth", shelf.row().url):
        assert weights("path", name) == (0, f"{shelf.path()}\n", "")
    status, out, err = weights("path", WHOLE, "--framework", "megengine")
    assert status == 0
    assert "converting" in err
    assert out.endswith(".pkl\n")
    assert open_checkpoint(out.strip()).hash == content_hash(WEIGHTS)
    assert weights("path", WHOLE, "--framework", "megengine") == (0, out, "")
    assert shelf.gets() == 2


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
        changed = bytearray(before)
        changed[len(before) // 2] ^= 1
        path.write_bytes(changed)
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
    record = json.loads(record_path(shelf.path()).read_text())
    for field, value in (("sha256", "0" * 64), ("hash", "0" * 64), ("bytes", 3)):
        record_path(shelf.path()).write_text(json.dumps({**record, field: value}))
        status, out, _ = weights("verify", WHOLE)
        assert status == 1
        assert f"{field} {record[field]}, downloaded with {value}" in out
    record_path(shelf.path()).write_text(json.dumps(record))
    assert weights("verify", WHOLE)[0] == 0


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
