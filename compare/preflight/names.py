"""The names of the checks, in the order of the report. Only Python's own modules are imported: --help is instant."""

CHECKS = (
    "tf32", "batches", "normalisation", "masks", "gradients", "update", "optimizer", "schedule", "curve", "loop", "resume",
    "precision", "memory", "speed",
)  # fmt: skip
# The works whose outcome each needs (compare/preflight/running.py).
NEEDS = {
    "tf32": ("environment",),
    "batches": ("batches",),
    "normalisation": ("batches",),
    "masks": ("batches", "step", "oracle"),
    "gradients": ("step", "oracle"),
    "update": ("step",),
    "optimizer": ("optimizer",),
    "schedule": ("optimizer", "train"),
    "curve": ("step", "oracle"),
    "loop": ("train", "losses"),
    "resume": ("train", "killed"),
    "precision": ("step",),
    "memory": ("measure",),
    "speed": ("measure",),
}
