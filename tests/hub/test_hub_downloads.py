"""pretrained=True from the first download on: eight processes of four frameworks, one download, the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import children
import pytest
from frameworks import frameworks_under_test
from published import FILES, MODEL, WEIGHTS, publish
from server import Server

from polymae.convert.checkpoint import content_hash

FRAMEWORKS = [name for name in frameworks_under_test() if name != "numpy"]
LOAD = """
import json, sys
import numpy as np
from polymae.backends.runtime import load_backend
from polymae.convert.checkpoint import content_hash
from polymae.hub import load
runtime = load_backend(sys.argv[1])
model = load("mae_vit_test_patch8", framework=sys.argv[1], pretrained=True)
rng = np.random.default_rng(0)
inputs = rng.standard_normal((2, 3, 32, 32)).astype(np.float32), rng.random((2, 16)).astype(np.float32)
loss = model(*(runtime.from_numpy(array, model) for array in inputs))[0]
others = {"torch", "megengine", "mindspore", "oneflow"} - {sys.argv[1]}
print(json.dumps([content_hash(runtime.weights(model)), float(runtime.to_numpy(loss)), sorted(others & set(sys.modules))]))
"""


def start(framework: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS_")}
    arguments = [sys.executable, "-c", LOAD, framework]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, text=True, env=clean, start_new_session=True, **pipes)


def finish(running: subprocess.Popen[str]) -> tuple[str, float, list[str], str]:
    out, err = children.heard(running)
    assert running.returncode == 0, err
    digest, loss, others = json.loads(out.splitlines()[-1])
    return digest, loss, others, err


def test_the_first_of_eight_processes_downloads_and_later_ones_need_no_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = publish(tmp_path / "served", server.base)
    for path in FILES.values():
        server.add(f"/{path}", (tmp_path / "served" / path).read_bytes())
    monkeypatch.setenv("POLYMAE_REGISTRY", str(registry))
    monkeypatch.setenv("POLYMAE_HOME", str(tmp_path / "home"))
    eight = [start(framework) for framework in (FRAMEWORKS * 8)[:8]]
    found = [finish(running) for running in eight]
    wanted = f"/{FILES['visualize']}"
    assert server.gets == {wanted: 1}
    assert server.sent == {wanted: len(server.files[wanted].body)}
    assert {digest for digest, *_ in found} == {content_hash(WEIGHTS["visualize"])}
    losses = [loss for _, loss, *_ in found]
    assert max(losses) - min(losses) < 2e-6 * max(losses)
    assert [others for _, _, others, _ in found] == [[]] * 8  # each imports its own framework and no other
    said = "".join(err for *_, err in found)
    assert said.count("downloading mae_visualize_vit_test.pth") == 1
    assert said.count(f"{MODEL} with mae_visualize_vit_test (encoder and decoder, raw pixels; CC-BY-NC 4.0)") == 8
    assert "CC-BY-NC 4.0" in said
    kept = {path.name for path in (tmp_path / "home").rglob("*") if path.is_file()}
    name = wanted.rpartition("/")[2]  # one file for all frameworks: each is built from it
    assert kept == {name, f"{name}.source.json", "licences-shown.json"}

    server.files.clear()
    asked = len(server.asked)
    again = [finish(running) for running in [start(framework) for framework in FRAMEWORKS]]
    assert len(server.asked) == asked
    assert [digest for digest, *_ in again] == [content_hash(WEIGHTS["visualize"])] * len(FRAMEWORKS)
    assert "downloading" not in "".join(err for *_, err in again)
