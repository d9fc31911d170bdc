"""Weights from the Hugging Face Hub, through its own library, against a local server that answers as the Hub does."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import children
import pytest
from checkpoints import CONFIG, MODEL, WEIGHTS

from polymae.backends.initial import initial_weights
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.conversion import Wish, convert, prepare
from polymae.convert.writing import official_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BEFORE = "89abcdef0123456789abcdef0123456789abcdef"  # a commit with other weights
COMMITS = {"": COMMIT, "main": COMMIT, COMMIT: COMMIT, "v1": BEFORE, BEFORE: BEFORE}
EARLIER = initial_weights(CONFIG, seed=3)
FETCH = """
import sys
from polymae.files.errors import Problem
from polymae.convert.checkpoint import open_checkpoint
from polymae.hub.huggingface import fetch_huggingface
try:
    folder = fetch_huggingface(sys.argv[1])
    print(*sorted(path.name for path in folder.iterdir()))
    print(open_checkpoint(folder).hash)
except Problem as problem:
    print("PROBLEM", problem)
"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        hub = self.server
        hub.asked[f"{self.command} {self.path.partition('?')[0]}"] += 1
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, kind, revision, *rest = [*parts[2 * api :], "", ""][:99]
        files = hub.repositories.get(f"{owner}/{name}")
        if f"{owner}/{name}" == "mine/gated":
            return self.answer(403, X_Error_Code="GatedRepo")
        if files is None:
            return self.answer(401 if api else 404, X_Error_Code="RepoNotFound")
        commit = COMMITS.get(revision if kind in ("revision", "tree", "resolve") else "")
        if commit is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        files = hub.earlier.get(f"{owner}/{name}", files) if commit == BEFORE else files
        if api:
            listed = [
                {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for n, b in files.items()
            ]
            said = {"id": f"{owner}/{name}", "sha": commit, "siblings": [{"rfilename": n} for n in files]}
            return self.answer(
                200, json.dumps(listed if kind == "tree" else said).encode(), Content_Type="application/json"
            )
        body = files.get("/".join(part for part in rest if part))
        if body is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        return self.answer(200, body, X_Repo_Commit=commit, ETag=f'"{hashlib.sha1(body).hexdigest()}"')

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A server with repositories: safetensors and everything else (with an earlier commit), only pickled, none."""
    made = tmp_path_factory.mktemp("made")
    official_checkpoint(made / "earlier.pth", CONFIG, EARLIER)
    convert(prepare(made / "earlier.pth", Wish()), "huggingface", "shards", made / "earlier")
    official_checkpoint(made / "official.pth", CONFIG, WEIGHTS)
    convert(prepare(made / "official.pth", Wish()), "huggingface", "shards", made / "folder")
    files = {path.name: path.read_bytes() for path in (made / "folder").iterdir()}
    convert(prepare(made / "official.pth", Wish()), "huggingface", "pth", made / "pickled.pth")
    pickled = {"config.json": files["config.json"], "pytorch_model.bin": (made / "pickled.pth").read_bytes()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.asked = Counter()
    server.repositories = {
        "mine/whole": {**files, **pickled, "tf_model.h5": b"h5", "README.md": b"me", "sub/model.safetensors": b"other"},
        "mine/pickled": {**pickled, "README.md": b"me"},
        "mine/none": {"README.md": b"me"},
    }
    server.earlier = {"mine/whole": {path.name: path.read_bytes() for path in (made / "earlier").iterdir()}}
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetched(hub, tmp_path):
    """Runs fetch_huggingface in a process whose Hub is the server; what it printed, line by line."""

    def run(repo, code=FETCH, **settings):
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "POLYMAE_"))}
        plain |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(tmp_path / "hf")}
        plain |= {"NO_PROXY": "127.0.0.1", "POLYMAE_HOME": str(tmp_path / "home")}
        done = children.run([sys.executable, "-c", code, repo], env={**plain, **settings}, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    hub.asked.clear()
    return run


def test_only_the_weights_and_the_configuration_are_fetched_and_only_once(hub, fetched):
    names, digest = fetched("mine/whole")
    assert (names, digest) == ("config.json model.safetensors", content_hash(WEIGHTS))
    bodies = [request for request in hub.asked if request.startswith("GET /mine/")]
    assert len(bodies) == 2
    assert hub.asked.total() > 2
    hub.asked.clear()
    assert fetched("mine/whole") == [names, digest]
    assert fetched("mine/whole", POLYMAE_OFFLINE="1") == [names, digest]
    assert fetched(f"mine/whole@{COMMIT}", HF_HUB_OFFLINE="1") == [names, digest]
    assert not hub.asked


def test_each_revision_has_its_own_weights(fetched):
    digests = {"": content_hash(WEIGHTS), "@v1": content_hash(EARLIER), f"@{BEFORE}": content_hash(EARLIER)}
    digests |= {"@main": content_hash(WEIGHTS), f"@{COMMIT}": content_hash(WEIGHTS)}
    for settings in ({}, {"POLYMAE_OFFLINE": "1"}):
        for revision, digest in digests.items():
            assert fetched(f"mine/whole{revision}", **settings)[1:] == [digest], (revision, settings)


def test_pickled_weights_where_there_are_no_others(fetched):
    assert fetched("mine/pickled@main") == ["config.json pytorch_model.bin", content_hash(WEIGHTS)]


def test_a_part_of_a_repository_is_completed(hub, fetched, tmp_path):
    fetched("mine/whole")
    for path in (tmp_path / "hf").rglob("model.safetensors"):
        path.resolve().unlink()
        path.unlink()
    assert fetched("mine/whole", POLYMAE_OFFLINE="1")[0].startswith("PROBLEM")
    assert fetched("mine/whole")[1] == content_hash(WEIGHTS)


WEIGHTS_COMMAND = """
import sys
from polymae.cli import main
assert main(["weights", "path", sys.argv[1]]) == 2
for words in (["download"], ["path"], ["path", "--framework", "mindspore"]):
    assert not main(["weights", *words, sys.argv[1]])
"""


def listed(folder, **changes):
    """A list in which mine/whole is published as test_ported; its path."""
    row = {"name": "test_ported", "source": "hub", "huggingface": "mine/whole", "model": MODEL, "kind": "huggingface"}
    source = {"url": "https://hub.example", "licence": "CC-BY-NC 4.0", "citation": "nobody"}
    registry = {"sources": {"hub": source}, "checkpoints": [{**row, "contents": "mae", "pixels": "raw", **changes}]}
    (folder / "registry.json").write_text(json.dumps(registry))
    return str(folder / "registry.json")


ROW = """
import sys
from polymae.files.errors import Problem
from polymae.hub.fetch import fetch
from polymae.hub.registry import published
sys.stderr = sys.stdout
try:
    fetch(published()["test_ported"])
except Problem as problem:
    print("PROBLEM", problem)
"""


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"model": "mae_vit_base_patch16"}, "is of mae_vit_test_patch8; test_ported is of mae_vit_base_patch16"),
     ({"contents": "encoder"}, "holds mae weights; test_ported is encoder only")],
    ids=["model", "contents"],
)  # fmt: skip
def test_a_folder_that_is_not_the_rows_is_refused(fetched, changes, says, tmp_path):
    *_, said = fetched("", ROW, POLYMAE_REGISTRY=listed(tmp_path, **changes))  # after the Hub's bars
    assert said.startswith("PROBLEM")
    assert says in said
    (said,) = fetched("", ROW, POLYMAE_REGISTRY=listed(tmp_path))
    assert said.startswith("Licence of test_ported: CC-BY-NC 4.0 (not for commercial use")
    assert fetched("", ROW, POLYMAE_REGISTRY=listed(tmp_path)) == []  # said once


def test_a_login_in_its_address_is_not_told(hub, fetched):
    here = hub.server_address[1]
    for repo, port in (("mine/missing", here), ("mine/gated", here), ("mine/none", here), ("mine/whole", 9)):
        (said,) = fetched(repo, HF_ENDPOINT=f"http://me:hush@127.0.0.1:{port}")
        assert said.startswith("PROBLEM")
        assert "hush" not in said


@pytest.mark.parametrize("name", ["mine/whole", "hf://mine/whole", "test_ported"])
def test_the_command_takes_its_names_too(fetched, name, tmp_path):
    folder, again, native = fetched(name, WEIGHTS_COMMAND, POLYMAE_REGISTRY=listed(tmp_path))
    assert folder == again
    assert Path(native).is_relative_to(tmp_path / "home" / "converted")
    assert open_checkpoint(native).hash == open_checkpoint(folder).hash == content_hash(WEIGHTS)


@pytest.mark.parametrize(
    ("repo", "settings", "words"),
    [
        ("mine/missing", {}, "There is no mine/missing"),
        ("mine/gated", {}, "hf auth login"),
        ("mine/whole@nowhere", {}, "no revision 'nowhere'"),
        ("mine/none", {}, "holds no weights that are read here"),
        ("a/b/c", {}, "owner/name"),
        ("mine/whole", {"POLYMAE_OFFLINE": "1"}, "POLYMAE_OFFLINE"),
        ("mine/whole", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ("mine/whole", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "HF_ENDPOINT"),
    ],
)
def test_what_is_not_to_be_had(fetched, repo, settings, words):
    (said,) = fetched(repo, **settings)
    assert said.startswith("PROBLEM")
    assert words in said


def test_without_its_library(fetched):
    (said,) = fetched("mine/whole", "import sys; sys.modules['huggingface_hub'] = None" + FETCH)
    assert "pip install huggingface_hub" in said
