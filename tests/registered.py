"""Published weights of the small model: a registry's rows, a server that has their files, and an empty cache."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkpoints import CONFIG, ENCODER, MODEL, WEIGHTS
from server import Server

from polymae.cli import main
from polymae.convert.writing import official_checkpoint
from polymae.hub.registry import Published, published

WHOLE, ALONE = "test_visualize", "test_pretrain"


@dataclass
class Shelf:
    """server: serves the files of the rows WHOLE and ALONE. home: the cache, not made yet. bodies: by row."""

    server: Server
    home: Path
    bodies: dict[str, bytes]
    registry: Path

    def row(self, name: str = WHOLE, **changes: object) -> Published:
        """A row; `changes` are written to the registry."""
        said = json.loads(self.registry.read_text())
        next(row for row in said["checkpoints"] if row["name"] == name).update(changes)
        self.registry.write_text(json.dumps(said))
        return published()[name]

    def path(self, name: str = WHOLE) -> Path:
        return self.home / "weights" / f"{name}.pth"

    def names(self) -> list[str]:
        """Every file in the cache, by its path in it."""
        return sorted(str(p.relative_to(self.home)) for p in self.home.rglob("*") if p.is_file())

    def gets(self) -> int:
        return sum(self.server.gets.values())


@pytest.fixture(name="shelf")
def shelf_of_weights(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    bodies, rows = {}, []
    for name, weights, contents in ((WHOLE, WEIGHTS, "mae"), (ALONE, ENCODER, "encoder")):
        official_checkpoint(tmp_path / "made.pth", CONFIG, weights)
        body = bodies[name] = (tmp_path / "made.pth").read_bytes()
        server.add(f"/mae/{name}.pth", body)
        digests = {"md5": hashlib.md5(body).hexdigest()[:6]}
        row = {"name": name, "source": "official", "path": f"{name}.pth", "model": MODEL, "kind": name[5:]}
        rows.append({**row, "contents": contents, "pixels": "raw" if contents == "mae" else "", "digests": digests})
    source = {"url": f"{server.base}/mae/", "licence": "CC-BY-NC 4.0", "citation": "nobody"}
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({"sources": {"official": source}, "checkpoints": rows}))
    monkeypatch.delenv("POLYMAE_MIRROR", raising=False)
    monkeypatch.setenv("POLYMAE_REGISTRY", str(registry))
    monkeypatch.setenv("POLYMAE_HOME", str(tmp_path / "home"))
    return Shelf(server, tmp_path / "home", bodies, registry)


@pytest.fixture(name="weights")
def weights_command(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Runs `polymae weights ...`: status, stdout and stderr."""

    def run(*words: object) -> tuple[object, str, str]:
        capsys.readouterr()
        try:
            status: object = main(["weights", *map(str, words)])
        except SystemExit as left:
            status = left.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    return run


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def start(*words: object, unprivileged: bool = False) -> subprocess.Popen[str]:
    """Begin `polymae weights ...` in a process of its own; unprivileged: even where the tests run as root."""
    command = [sys.executable, "-m", "polymae", "weights", *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(os.environ),
        preexec_fn=_give_up_privileges if unprivileged else None,
    )


def _give_up_privileges() -> None:
    """Have the program that is started obey the permissions of files, as everybody's but root's do."""
    for capability in (1, 2):  # linux/capability.h: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused to who has none of them anyway
