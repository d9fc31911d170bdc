"""`python convert/convert_weights.py ...` from a clone, without an installation, is `convert_weights ...`.

The scripts of this name that PolyMAE replaces each wrote for one framework. Their arguments are understood without its name:
`-m mae_vit_base_patch16 -c mae.pth` writes for MegEngine, `--mindspore_path` or `--ms_ckpt_path` for MindSpore.
"""

if __name__ == "__main__":
    import runpy
    import sys
    from pathlib import Path

    # In place of this folder, whose modules have the names of others.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    words = sys.argv[1:]
    if words and words[0].startswith("-") and not {"-h", "--help"}.intersection(words):
        of_mindspore = any(word.startswith(("--mindspore_path", "--ms_ckpt_path")) for word in words)
        sys.argv[1:1] = ["mindspore" if of_mindspore else "megengine"]
    runpy.run_module("polymae.cli.convert_weights", run_name="__main__")
