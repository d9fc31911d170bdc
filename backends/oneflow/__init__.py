"""The OneFlow backend."""

from .start import import_oneflow

import_oneflow()
