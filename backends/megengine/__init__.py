"""The MegEngine backend."""

from .start import import_megengine

import_megengine()
