"""`polymae weights`: the published checkpoints, and those of them that are kept on this machine."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import FRAMEWORKS
from ..files.errors import Problem
from .options import actions_of

if TYPE_CHECKING:
    from ..hub.inventory import Cached
    from ..hub.resolve import Source

_NAME = "a name or file name of `polymae weights list`, a URL, or a Hugging Face id (owner/name)"
_WIDTH = 118  # columns of the text under the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae weights` and of its actions."""
    action = actions_of(parser, "weights")
    listing = action("list", _list, "list every published checkpoint, and what is kept on this machine")
    listing.add_argument("--json", action="store_true", help="machine-readable output with everything that is known")
    path = action("path", _path, "print where downloaded weights lie, and nothing else on stdout")
    path.add_argument("name", help=_NAME)
    download = action("download", _download, "download weights where they are not kept yet, and print where they lie")
    download.add_argument("names", metavar="name", nargs="+", help=_NAME)
    for parser_of_files in (path, download):
        parser_of_files.add_argument(
            "--framework",
            choices=FRAMEWORKS,
            help="as this framework's own loader reads them: if need be, they are converted (convert_weights), once",
        )
    verify = action("verify", _verify, "look through what is kept, print its full digests, and say what differs")
    verify.add_argument("names", metavar="name", nargs="*", help="as for path; without one: everything")
    verify.add_argument("--json", action="store_true", help="machine-readable output")
    clear = action("clear", _clear, "remove what is kept")
    clear.add_argument("names", metavar="name", nargs="*", help="as for path")
    clear.add_argument("--converted", action="store_true", help="only files that were converted from others")
    clear.add_argument("--all", action="store_true", help="everything in the cache that PolyMAE put there")


def run(args: argparse.Namespace) -> int:
    """Run the action and return 0; 1 if a file that was verified differs."""
    return int(args.work(args))


def _list(args: argparse.Namespace) -> int:
    from ..files.urls import shown
    from ..hub.inventory import cached
    from ..hub.receipts import home
    from ..hub.registry import published
    from ..hub.resolve import Source

    here = cached()
    rows: list[dict[str, Any]] = []
    for row in published().values():
        path = Source(row=row, huggingface=row.huggingface).kept()
        facts = {
            **asdict(row),
            "address": shown(row.address),
            "url": shown(row.url),
            "path": shown(row.path),
            "holds": row.holds,
        }
        rows.append({**facts, "cached": None if path is None else str(path)})
    if args.json:
        print(json.dumps({"home": str(home()), "published": rows, "cached": [_facts(one) for one in here]}, indent=2))
        return 0
    _print_table(rows)
    if here:
        print(f"\nIn {home()}, {_megabytes(sum(one.bytes for one in here))}:")
        for one in here:
            print(f"{_megabytes(one.bytes):>12}  {one.description}: {one.name}")
    return 0


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from ..hub.licences import in_words

    titles = ("name", "model", "kind", "holds", "top-1", "here")
    table = [{**row, "top-1": _top1(row["numbers"]), "here": "yes" if row["cached"] else "-"} for row in rows]
    lines = [titles, *(tuple(str(line[title]) for title in titles) for line in table)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths)).rstrip())
    print("\nkind: what pretrained= takes for the model. top-1: in per cent on ImageNet-1k; * by linear probe.")
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["licence"], []).append(row["name"])
    *few, most = sorted(names, key=lambda licence: len(names[licence]))
    licences = [f"{in_words(licence)}: {', '.join(names[licence])}" for licence in few]
    licences.append(f"{in_words(most)}: all{' others' if few else ''}")
    print("\n".join(textwrap.wrap(f"Licences: {'; '.join(licences)}.", _WIDTH)))


def _path(args: argparse.Namespace) -> int:
    from ..files.urls import shown

    source = _meant(args.name)
    path = source.kept()
    if path is None:
        name = shown(args.name)
        command = f"polymae weights download {name}" + (f" --framework {args.framework}" if args.framework else "")
        whole = "" if name == args.name else ", with its login and query"
        raise Problem(f"{source.why_not() or f'{name} is not in the cache.'} To have it: {command}{whole}")
    print(_as_native(path, args.framework))
    return 0


def _download(args: argparse.Namespace) -> int:
    for source in [_meant(name) for name in args.names]:  # first all names, then the first download
        print(_as_native(source.fetch(), args.framework), flush=True)
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ..hub.inventory import verify
    from ..hub.receipts import home

    chosen = _chosen(args.names)
    rows, status = [], 0
    for result in verify(chosen):
        status = 1 if result.problems else status
        measured = {
            name: result.measured and getattr(result.measured, name) for name in ("bytes", "md5", "sha256", "hash")
        }
        rows.append({**_facts(result.cached), "problems": list(result.problems), "measured": measured})
        if not args.json:
            right = "WRONG" if result.problems else "right" if result.measured else "-----"
            print(f"{result.cached.path}\n    {right}  {result.cached.description}, {result.cached.name}")
            for name, value in measured.items():
                if value:
                    print(f"    {name:<7}{value}")
            for problem in result.problems:
                print(f"    {problem}")
    if args.json:
        print(json.dumps(rows, indent=2))
    elif status:
        print("To have a file again: polymae weights clear NAME, then polymae weights download NAME")
    if not chosen:
        print(f"nothing is kept in {home()}", file=sys.stderr)
    return status


def _clear(args: argparse.Namespace) -> int:
    from ..hub.inventory import clear, original
    from ..hub.receipts import home

    if not (args.names or args.converted or args.all) or (args.names and args.all):
        raise Problem("Say what to remove: names, --converted (only what was converted), or --all.")
    if args.names:
        paths = [original(name) for name in args.names]
        _chosen(args.names)
    removed = clear(paths if args.names else None, args.converted)
    for path, size in removed:
        print(f"removed {_megabytes(size):>12}  {path}")
    print(f"{_megabytes(sum(size for _, size in removed))} freed in {home()}")
    return 0


def _chosen(names: Sequence[str]) -> list[Cached]:
    """The entries of the cache that belong to these names, or all. Raises Problem for a name of which nothing is kept."""
    from ..files.urls import shown
    from ..hub.inventory import cached, original

    here = cached()
    if not names:
        return here
    chosen = []
    for name in names:
        place = original(name)
        belonging = [one for one in here if one.original == place]
        if not belonging:
            raise Problem(f"Nothing is kept of {shown(name)}: polymae weights download {shown(name)}")
        chosen += belonging
    return chosen


def _meant(name: str) -> Source:
    """The source of a name. Raises Problem, with the nearest names, for an unknown one."""
    from ..files.urls import shown
    from ..hub.registry import nearest, published
    from ..hub.resolve import remote

    source = remote(name) or (None if Path(name).exists() else remote(f"hf://{name}"))
    if source is not None:
        return source
    of_kind = [row.name for row in published().values() if row.kind == name]
    if of_kind:
        raise Problem(f"{name!r} is a kind, of which each model has its own: {', '.join(of_kind)}.")
    raise Problem(
        f"There are no weights {shown(name)!r}. {nearest(name)} A URL (http:// or https://) or a Hugging Face id "
        "(owner/name, hf://owner/name) also works."
    )


def _as_native(path: Path, framework: str | None) -> Path:
    """The file that the framework's own loader reads, converted if need be. Raises Problem if it cannot be converted."""
    if framework is None:
        return path
    from ..hub.native import native_file

    return native_file(path, framework)


def _facts(one: Cached) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "kind": one.kind,
        "name": one.name,
        "framework": one.framework or None,
        "bytes": one.bytes,
        "record": asdict(one.receipt) if one.receipt else None,
    }


def _top1(numbers: dict[str, float]) -> str:
    """The published accuracy, in per cent; * for that of a linear probe."""
    for name, value in numbers.items():
        if name.endswith("top-1"):
            return f"{value:.1f}" + ("*" if name != "top-1" else "")
    return "-"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
