"""The five model.py and blocks.py files read alike, and so do the optimizer.py: same classes, methods, names, taps."""

import ast
import re
from pathlib import Path

import pytest

from polymae.backends import FRAMEWORKS

BACKENDS = Path(__file__).parent.parent / "backends"
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
ITS_OWN = ("number", "(lr, scale, ", "(beta2, ", "decay")


@pytest.mark.parametrize("framework", ["megengine", "mindspore", "oneflow"])
def test_hand_written_optimizers_are_that_of_numpy(framework: str) -> None:
    expected = structure(source("numpy", "optimizer"))
    assert len(expected) > 40
    found = structure(source(framework, "optimizer"))
    if framework == "mindspore":
        found = [line for line in found if not line.strip().startswith(ITS_OWN)]
        expected = [line.replace("(eps, decay)", "eps") for line in expected]
    assert found == expected


def test_an_optimizer_of_a_framework_has_the_same_methods() -> None:
    def methods(framework: str) -> list[str]:
        lines = structure(source(framework, "optimizer"))
        return [
            line for line in lines if re.match(r"  def (__init__|step|tensors|state|load_state)\(|def trained", line)
        ]

    assert len(methods("numpy")) == 6
    assert methods("torch") == methods("numpy")


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
