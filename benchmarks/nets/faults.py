"""Every fault of the nets by its name."""

from __future__ import annotations

from . import conv_faults, mixer_faults, transformer_faults
from .planting import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault for module in (conv_faults, mixer_faults, transformer_faults) for fault in module.FAULTS
}
