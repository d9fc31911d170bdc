"""The five backends read alike, file by file, and what they share is written once.

model.py and blocks.py have the same classes, methods, names and taps; optimizer.py, runtime.py and weights.py the same
functions, and none of those that backends/runtime.py and backends/optimization.py have.
"""

import ast
import re

import pytest
from repository import ROOT

from polymae.backends import FRAMEWORKS
from polymae.backends.averaging import Average
from polymae.backends.optimization import HandWritten, Optimizer
from polymae.backends.packing import Packing
from polymae.backends.runtime import Runtime

BACKENDS = ROOT / "backends"
SAME = {"construct": "forward"}  # what MindSpore calls the forward pass


FILES = ("blocks", "model")


def source(framework: str, file: str = "model") -> str:
    return (BACKENDS / framework / f"{file}.py").read_text()


def _targets(node: ast.Assign) -> list[str]:
    return [ast.unparse(target) for target in node.targets]


def structure(text: str) -> list[str]:
    """Classes, functions, arguments, docstrings and the targets of assignments, in order; framework calls left out."""
    found: list[str] = []

    def visit(node: ast.AST, depth: int) -> None:
        for child in ast.iter_child_nodes(node):
            indent = "  " * depth
            if isinstance(child, ast.ClassDef):
                found.append(f"{indent}class {child.name}: {ast.get_docstring(child)}")
            elif isinstance(child, ast.FunctionDef):
                arguments = ", ".join(a.arg for a in child.args.args)
                defaults = ", ".join(ast.unparse(d) for d in child.args.defaults)
                found.append(f"{indent}def {SAME.get(child.name, child.name)}({arguments}) [{defaults}]")
                found.append(f"{indent}  {ast.get_docstring(child)}")
            elif isinstance(child, ast.Assign):
                found.append(f"{indent}{' = '.join(_targets(child))}")
            elif isinstance(child, (ast.For, ast.If)):
                found.append(
                    f"{indent}{type(child).__name__} {ast.unparse(getattr(child, 'target', None) or child.test)}"
                )
            elif isinstance(child, ast.Return):
                found.append(f"{indent}return")
            visit(child, depth + 1)

    visit(ast.parse(text), 0)
    return found


def shapes(text: str) -> list[str]:
    """The trailing comments that give shapes."""
    return re.findall(r"#.*(\[N[^\]]*\])", text)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "torch"])
def test_structure_is_that_of_torch(framework: str, file: str) -> None:
    assert len(structure(source("torch", file))) > 50
    assert structure(source(framework, file)) == structure(source("torch", file))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "torch"])
def test_shape_comments_are_those_of_torch(framework: str, file: str) -> None:
    assert shapes(source(framework, file)) == shapes(source("torch", file))


# MindSpore's numbers have to be made tensors, or float64 would be lost.
ITS_OWN = ("number", "(lr, scale, ", "(beta2, ", "(decay, rest)")


@pytest.mark.parametrize("framework", ["megengine", "mindspore", "oneflow"])
def test_hand_written_optimizers_are_that_of_numpy(framework: str) -> None:
    expected = structure(source("numpy", "optimizer"))
    assert len(expected) >= 20
    found = structure(source(framework, "optimizer"))
    found = [line for line in found if not line.strip().startswith("ends")]
    if framework == "mindspore":
        found = [line for line in found if not line.strip().startswith(ITS_OWN)]
    assert found == _called(expected, "numpy", framework)


def test_lars_and_the_average_of_torch_are_those_of_numpy() -> None:
    found, expected = (structure(source(name, "optimizer")) for name in ("torch", "numpy"))
    for first, end in (("class Packed", "class AdamW"), ("class LARS", "")):
        mine, theirs = (_between(lines, first, end) for lines in (found, _called(expected, "numpy", "torch")))
        assert len(mine) > 10
        assert mine == theirs


def _called(lines: list[str], framework: str, other: str) -> list[str]:
    """Lines of a structure with another framework's name in them."""
    names = {
        "numpy": "NumPy", "torch": "PyTorch", "megengine": "MegEngine", "mindspore": "MindSpore", "oneflow": "OneFlow",
    }  # fmt: skip
    return [line.replace(f"in {names[framework]}.", f"in {names[other]}.") for line in lines]


def _between(lines: list[str], first: str, end: str) -> list[str]:
    """Those from the one that begins with `first` up to the one that begins with `end`; "": the last."""
    at = next(i for i, line in enumerate(lines) if line.startswith(first))
    until = [i for i, line in enumerate(lines) if end and line.startswith(end)]
    return lines[at : until[0] if until else None]


def methods(text: str, name: str) -> dict[str, str]:
    """A class's methods with their arguments, defaults and decorators, and the names that it is given by assignment."""
    (found,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    listed: dict[str, str] = {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef):
            listed[node.name] = ast.unparse(node.args)
        elif isinstance(node, ast.Assign):
            listed |= dict.fromkeys(_targets(node), "")
    return listed


def abstract(kind: type) -> set[str]:
    return set(kind.__abstractmethods__)  # type: ignore[attr-defined]


def same_arguments(text: str, name: str, shared: str, base: str) -> dict[str, str]:
    """The methods of a class that differ in their arguments from those of its base, and how they are written."""
    expected = methods((BACKENDS / shared).read_text(), base)
    return {
        method: arguments
        for method, arguments in methods(text, name).items()
        if arguments and method in expected and _untyped(arguments) != _untyped(expected[method])
    }


def _untyped(arguments: str) -> str:
    """Names and defaults; a framework's types are narrower."""
    given = ast.parse(f"def f({arguments}): ...").body[0]
    assert isinstance(given, ast.FunctionDef)
    for argument in [*given.args.args, *filter(None, [given.args.vararg])]:
        argument.annotation = None
    return ast.unparse(given.args)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_runtime_has_what_differs_and_no_more(framework: str) -> None:
    """All five have the abstract methods of Runtime; `run`, `tensors` and what else is written once none of them has."""
    text = source(framework, "runtime")
    assert set(methods(text, "Backend")) == abstract(Runtime) | {"framework", "DTYPES"}
    assert same_arguments(text, "Backend", "runtime.py", "Runtime") == {}
    assert list(methods(text, "Backend")) == list(methods(source("torch", "runtime"), "Backend"))
    assert "__all__" not in text


def test_a_runtime_that_differs_is_seen() -> None:
    text = source("oneflow", "runtime")
    assert text.count("parameters: Mapping[str, Any], watched") == 1
    other = text.replace("parameters: Mapping[str, Any], watched", "watched: Watched, parameters")
    assert set(same_arguments(other, "Backend", "runtime.py", "Runtime")) == {"differentiate"}
    assert abstract(Runtime) >= {"differentiate", "no_grad", "from_numpy", "named_parameters"}
    assert not abstract(Runtime) & {"run", "tensors", "trained", "weights"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_optimizer_has_what_differs_and_no_more(framework: str) -> None:
    """Those written by hand have their step alone; PyTorch's own AdamW also holds its state in its own way."""
    text = source(framework, "optimizer")
    own = {"update", "move"}
    assert abstract(HandWritten) == own | abstract(Packing) == {"update", "move", "norm", "pack", "unpack", "assign"}
    assert set(methods(text, "Packed")) == abstract(Packing)
    assert set(methods(text, "LARS")) == own
    assert set(methods(text, "EMA")) == abstract(Average) - abstract(Packing) == {"move"}
    of_torch = abstract(Optimizer) | {"__init__", "lr", "rates", "_moment"}
    assert set(methods(text, "AdamW")) == (of_torch if framework == "torch" else own)
    for name, shared, base in (
        ("AdamW", "optimization.py", "Optimizer"), ("LARS", "optimization.py", "HandWritten"),
        ("Packed", "packing.py", "Packing"), ("EMA", "averaging.py", "Average"),
    ):  # fmt: skip
        assert same_arguments(text, name, shared, base) == {}


def functions(text: str) -> list[str]:
    """The functions of a file with their arguments, in order, but those whose names begin with _."""
    nodes = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    return [f"{n.name}({_untyped(ast.unparse(n.args))})" for n in nodes]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_weights_files_have_the_same_functions(framework: str) -> None:
    assert len(functions(source("torch", "weights"))) == 5
    assert functions(source(framework, "weights")) == functions(source("torch", "weights"))


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "numpy"])
def test_modules_files_have_the_functions_that_are_promised(framework: str) -> None:
    promised = methods((BACKENDS / "modules.py").read_text(), "Modules")
    expected = [f"{name}({_untyped(arguments.removeprefix('self, '))})" for name, arguments in promised.items()]
    assert len(expected) == 8
    assert functions(source(framework, "modules")) == expected


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_backend_has_the_same_files(framework: str) -> None:
    names = {path.name for path in (BACKENDS / framework).glob("*.py")}
    assert {"__init__.py", "model.py", "optimizer.py", "blocks.py", "runtime.py", "weights.py"} <= names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('x = out["latent"] = self.norm(x)', "x = self.norm(x)"),  # a tap forgotten
        ("mask_ratio: float = 0.75", "mask_ratio: float = 0.7"),
        ("def unpatchify(self, x", "def unpatchify(self, pred"),
        ("        latent, mask, ids_restore =", "        z, mask, ids_restore ="),
    ],
)
def test_a_difference_is_seen(old: str, new: str) -> None:
    text = source("oneflow")
    assert old in text
    assert structure(text.replace(old, new, 1)) != structure(source("torch"))


def test_a_different_shape_comment_is_seen() -> None:
    text = source("oneflow")
    assert shapes(text.replace("# [N, K, D]", "# [N, L, D]")) != shapes(source("torch"))
