"""`python compare/compare.py ...` from a clone, without an installation, is `polymae compare ...`."""

if __name__ == "__main__":
    import runpy
    import sys
    from pathlib import Path

    # In place of this folder, whose modules have the names of others.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    sys.argv[1:1] = ["compare"]
    runpy.run_module("polymae", run_name="__main__")
