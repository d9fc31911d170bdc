"""The MegEngine backend."""

from .importing import import_megengine

import_megengine()
