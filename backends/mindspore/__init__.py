"""The MindSpore backend."""

import os

# Before MindSpore is imported: errors only, not a warning for each deprecated call inside MindSpore itself.
os.environ.setdefault("GLOG_v", "3")
