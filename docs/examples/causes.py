"""What is said where it is not the port that is wrong, or not its numbers. NumPy alone."""

import numpy as np

from polymae.compare import parity

rng = np.random.default_rng(16)
inputs = {"q": rng.standard_normal((6, 16)), "k": rng.standard_normal((6, 16))}
later = np.triu(np.ones((6, 6), bool), 1)


def reference(inputs):
    """Scores of attention, masked."""
    return {"scores": np.where(later, -np.inf, inputs["q"] @ inputs["k"].T)}


def dropout(inputs):
    """Dropout is left on."""
    return {"scores": reference(inputs)["scores"] * (rng.random((6, 6)) > 0.1)}


def half(inputs):
    """It ran in half precision."""
    return {"scores": reference(inputs)["scores"].astype(np.float16)}


def transposed(inputs):
    """It raises."""
    return {"scores": np.where(later, -np.inf, inputs["q"].T @ inputs["k"].T)}


def masked_by_a_number(inputs):
    """It masks with a number, the reference with an infinity."""
    return {"scores": np.where(later, np.float32(-1e9), inputs["q"] @ inputs["k"].T)}


def unnamed(inputs):
    """A tensor without a name."""
    return reference(inputs)["scores"]


for port in (dropout, half, transposed, masked_by_a_number, unnamed):
    with np.errstate(invalid="ignore"):  # infinity times zero, in dropout
        print(f"{port.__name__}:", parity(reference, port, inputs, label="port").reason)
slip = parity(reference, lambda inputs: reference(inputs), inputs, taps=["score"], label="port")
print("slip:", slip.reason)
