"""What the numbers of a run may depend on is recorded, set to be exact where it can be, and told where not."""

import os
import sys
from pathlib import Path

import children
import pytest
from children import run_in
from runs import MODEL, Edited, inputs, judged, plain, refused, report

from polymae.backends.denormals import denormals, keep_denormals
from polymae.compare.record.environment import MATH_MODES, suspects
from polymae.compare.trace import Trace

RECORD = """
import json, os, sys
import numpy as np
from pathlib import Path
from polymae.cli import main
from polymae.compare.trace import Trace
framework, inputs, out = sys.argv[1:4]
assert main(["record", "--framework", framework, "-m", {model!r}, "--inputs", inputs, "--out", out, "--taps", "loss"]) == 0
environment = Trace(Path(out)).manifest["environment"]
print(json.dumps(environment | {{"here": str(np.float32(1e-40) * np.float32(1))}}))
"""
# What the kernels of these do on a CPU, as measured; the others keep denormal numbers.
FLUSHING = {
    "megengine": "flushed to zero by its kernels (sum, matrix product)",
    "mindspore": "flushed to zero by its kernels (matrix product)",
}


def test_every_framework_says_what_its_numbers_depend_on(framework: str, tmp_path: Path) -> None:
    out = tmp_path / "t.npz"
    loose = os.environ | dict.fromkeys(MATH_MODES, "BF16") | {"OMP_NUM_THREADS": "1"}
    script = RECORD.format(model=MODEL)
    command = [sys.executable, "-c", script, framework, str(inputs()), str(out)]
    done = children.run(command, env=loose, text=True)
    assert done.returncode == 0, done.stderr
    environment = Trace(out).manifest["environment"]
    # Whether MindSpore's threads flush is decided when they are started: now and then, on a busy machine, they do not.
    known = {FLUSHING.get(framework, "kept")} | ({"kept"} if framework == "mindspore" else set())
    assert environment["denormals"] in known
    assert '"here": "1e-40"' in done.stdout  # this process keeps them, whatever was imported
    assert (environment["framework"], environment["device"], environment["tf32"]) == (framework, "cpu", False)
    assert environment["deterministic"] is True
    assert environment["threads"] == (None if framework == "numpy" else 1)
    for name in ("version", "numpy", "polymae", "python", "platform", "processor", "blas"):
        assert isinstance(environment[name], str)
        assert environment[name]
    variables = environment["variables"]
    assert {variables[name] for name in MATH_MODES} == {"STRICT"}  # whatever the process was started with
    assert variables["OMP_NUM_THREADS"] == "1"
    told = suspects(environment)
    flushed = environment["denormals"]
    assert told == ([] if flushed == "kept" else [f"denormal numbers (below 1.2e-38) were {flushed}"])


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"tf32": True}, "without --allow-tf32"),
        ({"denormals": "flushed to zero"}, "were flushed to zero"),
        ({"threads": 4}, "4 threads"),
        ({"deterministic": False}, "not deterministic"),
        ({"variables": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}}, "ONEDNN_DEFAULT_FPMATH_MODE=BF16"),
    ],
)
def test_what_was_not_neutralised_is_told(environment: dict[str, object], words: str) -> None:
    recorded = Trace(plain()).manifest["environment"]
    (notice,) = judged(Edited(plain(), environment=recorded | environment)).notices
    assert words in notice
    assert not judged(Trace(plain())).notices


def test_an_environment_of_other_types_is_no_traceback() -> None:
    for value in (None, 3, [], {}, "x"):
        assert isinstance(
            suspects(dict.fromkeys(("tf32", "denormals", "threads", "deterministic", "variables"), value)), list
        )


def test_a_fault_under_tf32_names_it(tmp_path: Path) -> None:
    path, name = plain(), "blocks.0.attn.qkv"
    environment = Trace(path).manifest["environment"] | {"tf32": True}
    rounded = Trace(path)[name].view("u4") & 0xFFFFE000
    found = report(Edited(path, {name: rounded.view("f4")}, environment=environment).save(tmp_path / "t.npz"))
    (judgement,) = found.judgements
    assert judgement.verdict == "fault"
    assert f"first wrong: {name} (" in found.reason(judgement)
    assert "with TF32 on: record without --allow-tf32" in found.reason(judgement)


def test_tf32_is_for_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(
        capsys,
        "record",
        "--framework",
        "numpy",
        "-m",
        MODEL,
        "--inputs",
        inputs(),
        "--out",
        tmp_path / "t.npz",
        "--allow-tf32",
    )
    assert "for a GPU" in said


def test_torch_lets_a_gpu_round_only_where_it_was_asked_to() -> None:
    said = run_in(
        "torch",
        "import torch\nfrom polymae.backends.runtime import load_backend\n"
        "setup = load_backend('torch').setup\nfor allowed in (False, True, False):\n"
        "    setup(allow_tf32=allowed)\n    switches = torch.backends.cuda.matmul, torch.backends.cudnn\n"
        "    print([switch.allow_tf32 for switch in switches], torch.get_float32_matmul_precision())",
    )
    off, on, again = said.splitlines()
    assert (off, on, again) == ("[False, False] highest", "[True, True] high", "[False, False] highest")


def test_oneflow_lets_a_gpu_round_only_where_it_was_asked_to() -> None:
    said = run_in(
        "oneflow",
        "import os\nfrom polymae.backends.runtime import load_backend\n"
        "setup = load_backend('oneflow').setup\nfor allowed in (False, True, False):\n"
        "    setup(allow_tf32=allowed)\n"
        "    print(*[os.environ.get(n) for n in ('ONEFLOW_EP_CUDA_ENABLE_TF32_EXECUTION', 'NVIDIA_TF32_OVERRIDE')])",
    )
    assert said.splitlines() == ["0 0", "1 None", "0 0"]


def test_denormal_numbers_can_be_kept_again() -> None:
    said = run_in(
        "megengine",
        "import warnings; warnings.simplefilter('ignore')\nimport megengine, numpy as np\nmegengine.tensor(0.0).numpy()\n"
        "from polymae.backends.denormals import denormals, keep_denormals\n"
        "print(denormals())\nkeep_denormals()\nprint(denormals())",
    )
    assert said.split()[-2:] == ["flushed", "kept"]
    keep_denormals()
    assert denormals() == "kept"
