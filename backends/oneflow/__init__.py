"""The OneFlow backend."""

from .importing import import_oneflow

import_oneflow()
