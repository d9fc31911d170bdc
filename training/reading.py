"""Recipes in and out: named ones, YAML files and single settings become a Recipe, and a Recipe becomes YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ..files.errors import Problem
from .recipe import Recipe, leaves, values

FOLDER = Path(__file__).parent / "recipes"
_IN_YAML = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text", "NoneType": "null"}


def named() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str | Path | Mapping[str, Any] | None = None, settings: Iterable[str] = ()) -> Recipe:
    """A recipe by its name or file, or from nested settings, with settings "name=value" changed; None: the defaults.

    Raises Problem, with the nearest names, for an unknown recipe or setting, and for a value of another type.
    """
    named_so = isinstance(name, (str, Path))
    tree = _tree_of(str(name)) if named_so else deepcopy(dict(name or {}))  # type: ignore[arg-type]
    for text in settings:
        _put(tree, text)
    return recipe_of(tree, str(name) if named_so else "the recipe")


def recipe_of(tree: Mapping[str, Any], where: str) -> Recipe:
    """The Recipe of nested settings, of the types that YAML knows. where: their origin, for messages. Raises Problem."""
    from jsonargparse import ArgumentError

    _require_known(tree, where)
    parser = _parser()
    try:
        made: Recipe = parser.instantiate(parser.parse_object({"recipe": dict(tree)})).recipe
    except ArgumentError as problem:
        raise Problem(f"{where}: {_in_a_sentence(str(problem))}") from None
    return made


def as_yaml(recipe: Recipe, comments: bool = False) -> str:
    """A recipe as YAML with every setting; comments: with a comment for each."""
    lines: list[str] = []
    group = ""
    flat = values(recipe)
    for name, leaf in leaves():
        *groups, last = name.split(".")
        if groups and groups[0] != group:
            group = groups[0]
            lines.append(f"{group}:")
        indent = "  " if groups else ""
        line = f"{indent}{last}: {_in_yaml(flat[name])}"
        lines.append(f"{line}  # {leaf.metadata['about']}" if comments else line)
    return "\n".join(lines) + "\n"


def _tree_of(name: str) -> dict[str, Any]:
    import yaml

    path = Path(name)
    if name in named():
        path = FOLDER / f"{name}.yaml"
    elif not path.is_file():
        near = get_close_matches(name, named(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise Problem(f"There is no recipe {name!r}, and no file of that name; there are {', '.join(named())}.{hint}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as problem:
        raise Problem(
            f"{path} is not a recipe: it cannot be read as YAML ({' '.join(str(problem).split())})."
        ) from None
    if tree is not None and not isinstance(tree, dict):
        raise Problem(f"{path} is not a recipe: it holds one {type(tree).__name__}, and not settings by name.")
    return tree or {}


def _put(tree: dict[str, Any], text: str) -> None:
    """Change one setting of a tree, "name=value"; the name is the last part of a dotted one, or all of it."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise Problem(f"{text!r} is not a setting; give name=value, as in --set epochs=100.")
    dotted = _dotted(name.strip(), "--set")
    *groups, last = dotted.split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            raise Problem(f"The recipe's {group} is {inner!r}; it must hold settings by name.")
        tree = inner
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        tree[last] = value


def _dotted(name: str, where: str) -> str:
    known = [dotted for dotted, _ in leaves()]
    fitting = [dotted for dotted in known if name in (dotted, dotted.rpartition(".")[2])]
    if fitting:
        return fitting[0]
    names = [*known, *(dotted.rpartition(".")[2] for dotted in known)]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "`polymae recipes official-base` lists them all."
    raise Problem(f"{where}: there is no setting {name!r}; {hint}")


def _require_known(tree: Mapping[str, Any], where: str) -> None:
    """Raise Problem for a name that no setting and no group has."""
    known = {dotted for dotted, _ in leaves()}
    groups = {dotted.partition(".")[0] for dotted in known if "." in dotted}
    for name, value in tree.items():
        if name in groups and isinstance(value, dict):
            for inner in value:
                if f"{name}.{inner}" not in known:
                    _dotted(f"{name}.{inner}", where)
        elif name in groups:
            raise Problem(f"{where}: {name} is {value!r}; it must hold settings by name.")
        elif name not in known:
            _dotted(str(name), where)
            raise Problem(f"{where}: {name} is a setting of a group: {_dotted(str(name), where)}.")


@cache
def _parser() -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, "recipe")
    return parser


def _in_a_sentence(message: str) -> str:
    """What jsonargparse says of one setting, with the types in YAML's words."""
    name = re.search(r'"recipe\.([\w.]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    types = re.findall(r"Expected an? (?:<class ')?([\w.]+(?:\[.*?\])?)", message)
    if not (name and value and types):
        return " ".join(message.replace("recipe.", "").split())
    words = [_IN_YAML.get(each, each.removeprefix("typing.").replace("Literal", "one of ")) for each in types]
    return f"{name[1]} is {value[1].rstrip('.')}; it must be {' or '.join(words)}."


def _in_yaml(value: Any) -> str:
    import yaml

    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=1 << 30)
    return text.removesuffix("...\n").strip()
