"""Recipes in and out: named ones, YAML files and single settings become a recipe of their task, and a recipe becomes YAML.

A recipe of another task than pre-training says it: `task: finetune`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, overload

from ..files.errors import Problem
from .classifying import FineTuning, Probe
from .recipe import Common, Recipe, leaves, values

KINDS: dict[str, type[Common]] = {kind.task: kind for kind in (Recipe, FineTuning, Probe)}
Kind = TypeVar("Kind", bound=Common)
FOLDER = Path(__file__).parent / "recipes"
_IN_YAML = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text", "NoneType": "null"}


def named(kind: type[Common] | None = None) -> list[str]:
    """The names of the recipes that come with the package; kind: only those of this task."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return [name for name in names if kind is None or kind_of(_tree_of(name), name) is kind]


@overload
def read_recipe(
    name: str | Path | Mapping[str, Any] | None = None, settings: Iterable[str] = (), *, kind: type[Recipe] = ...
) -> Recipe: ...
@overload
def read_recipe(name: str | Path | Mapping[str, Any] | None, settings: Iterable[str], kind: type[Kind]) -> Kind: ...
def read_recipe(
    name: str | Path | Mapping[str, Any] | None = None, settings: Iterable[str] = (), kind: type[Common] = Recipe
) -> Common:
    """A recipe by its name or file, or from nested settings, with settings "name=value" changed; None: the defaults.

    kind: the task that it is for. Raises Problem, with the nearest names, for an unknown recipe or setting, for a value of
    another type, and for a recipe of another task.
    """
    tree, where = _tree_and_origin(name)
    if name is not None and kind_of(tree, where) is not kind:
        task = kind_of(tree, where).task
        raise Problem(
            f"{where} is a recipe of {task}, and {kind.task} was asked for: take `polymae {task}`, {_others(kind)}."
        )
    return _changed(tree, settings, kind, where)


def read_any_recipe(name: str | Path | Mapping[str, Any], settings: Iterable[str] = ()) -> Common:
    """The same of any task, which the recipe says. Raises Problem as read_recipe."""
    tree, where = _tree_and_origin(name)
    return _changed(tree, settings, kind_of(tree, where), where)


def as_settings(given: Mapping[str, Any] | Iterable[str]) -> tuple[str, ...]:
    """Settings "name=value", of such texts or of values by name."""
    if isinstance(given, Mapping):
        return tuple(f"{name}={_in_yaml(value)}" for name, value in given.items())
    return (given,) if isinstance(given, str) else tuple(given)


def kind_of(tree: Mapping[str, Any], where: str) -> type[Common]:
    """The task of nested settings: the one that they name, else pre-training. Raises Problem for an unknown one."""
    task = tree.get("task", Recipe.task)
    if task not in KINDS:
        raise Problem(f"{where}: task is {task!r}; it must be one of {', '.join(KINDS)}.")
    return KINDS[task]


def recipe_of(tree: Mapping[str, Any], where: str, kind: type[Kind]) -> Kind:
    """The recipe of nested settings, of the types that YAML knows. where: their origin, for messages. Raises Problem."""
    from jsonargparse import ArgumentError

    settings = {name: value for name, value in tree.items() if name != "task"}
    _require_known(settings, where, kind)
    parser = _parser(kind)  # type: ignore[arg-type]  # that a class is hashable is lost on mypy here
    try:
        made: Kind = parser.instantiate(parser.parse_object({"recipe": settings})).recipe
    except ArgumentError as problem:
        raise Problem(f"{where}: {_in_a_sentence(str(problem))}") from None
    return made


def _tree_and_origin(name: str | Path | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    if isinstance(name, (str, Path)):
        return _tree_of(str(name)), str(name)
    return deepcopy(dict(name or {})), "the recipe"


def _changed(tree: dict[str, Any], settings: Iterable[str], kind: type[Kind], where: str) -> Kind:
    for text in settings:
        _put(tree, text, kind)
    return recipe_of(tree, where, kind)


def _others(kind: type[Common]) -> str:
    """The named recipes of a task, as the end of a sentence."""
    return f"or a recipe for this one: {', '.join(named(kind))}"


def as_yaml(recipe: Common, comments: bool = False) -> str:
    """A recipe as YAML with every setting; comments: with a comment for each."""
    lines = [] if isinstance(recipe, Recipe) else [f"task: {recipe.task}"]
    group = ""
    flat = values(recipe)
    for name, leaf in leaves(recipe):
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
    if (FOLDER / f"{name}.yaml").is_file() and path.name == name:
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


def _put(tree: dict[str, Any], text: str, kind: type[Common]) -> None:
    """Change one setting of a tree, "name=value"; the name is the last part of a dotted one, or all of it."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise Problem(f"{text!r} is not a setting; give name=value, as in --set epochs=100.")
    dotted = _dotted(name.strip(), "--set", kind)
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


def _dotted(name: str, where: str, kind: type[Common]) -> str:
    known = [dotted for dotted, _ in leaves(kind)]
    fitting = [dotted for dotted in known if name in (dotted, dotted.rpartition(".")[2])]
    if fitting:
        return fitting[0]
    names = [*known, *(dotted.rpartition(".")[2] for dotted in known)]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"`polymae recipes {kind.usual}` lists them all."
    tasks = [
        other.task
        for other in KINDS.values()
        if name in {part for full, _ in leaves(other) for part in (full, full.rpartition(".")[2])}
    ]
    if tasks:
        hint = f"it is one of {' and '.join(tasks)}, and this recipe is of {kind.task}."
    raise Problem(f"{where}: there is no setting {name!r}; {hint}")


def _require_known(tree: Mapping[str, Any], where: str, kind: type[Common]) -> None:
    """Raise Problem for a name that no setting and no group has."""
    known = {dotted for dotted, _ in leaves(kind)}
    groups = {dotted.partition(".")[0] for dotted in known if "." in dotted}
    for name, value in tree.items():
        if name in groups and isinstance(value, dict):
            for inner in value:
                if f"{name}.{inner}" not in known:
                    _dotted(f"{name}.{inner}", where, kind)
        elif name in groups:
            raise Problem(f"{where}: {name} is {value!r}; it must hold settings by name.")
        elif name not in known:
            _dotted(str(name), where, kind)
            raise Problem(f"{where}: {name} is a setting of a group: {_dotted(str(name), where, kind)}.")


@cache
def _parser(kind: type[Common]) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "recipe")
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
