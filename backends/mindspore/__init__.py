"""The MindSpore backend."""

import os

# Before MindSpore is imported: errors only, not a warning for each deprecated call inside MindSpore itself.
os.environ.setdefault("GLOG_v", "3")
# Its queues make the calling thread spin while it waits: half of a step's CPU time. Without them it sleeps.
os.environ.setdefault("MS_DEV_HOST_BLOCKING_RUN", "1")
