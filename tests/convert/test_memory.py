"""A conversion needs no more memory than 64 MB and the largest tensor, whatever the size of the model."""

import json
import struct
import sys
from math import prod

import children
import pytest

from polymae.backends.presets import model_config
from polymae.backends.spec import params

MODEL = "mae_vit_large_patch16"
# Pages of a mapped file are not counted: the system takes them back whenever it needs them.
SCRIPT = """
import sys, threading, time
from polymae.cli.convert_weights import main

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

peak = 0
threading.Thread(target=watch, daemon=True).start()
status = main(sys.argv[1:])
print(peak)
raise SystemExit(status)
"""


def hollow_safetensors(path, model):
    """A checkpoint of zeros that takes no room on the disk: the file system keeps no blocks for them."""
    header, offset = {}, 0
    for param in params(model_config(model)):
        size = 4 * prod(param.shape)
        header[param.name] = {"dtype": "F32", "shape": param.shape, "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + offset)
    return max(4 * prod(param.shape) for param in params(model_config(model)))


@pytest.mark.parametrize(
    "target", [["megengine", "-o", "l.pkl"], ["mindspore", "--to", "mindformers-0.8", "-o", "l.ckpt"]]
)
def test_memory_stays_small(target, tmp_path):
    largest = hollow_safetensors(tmp_path / "l.safetensors", MODEL)
    command = [sys.executable, "-c", SCRIPT, *target, "-c", "l.safetensors"]
    done = children.run(command, cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.splitlines()[-1])
    assert peak > 4_000_000  # it was measured
    assert peak < 64_000_000 + largest
    for written in tmp_path.iterdir():
        written.unlink()
