"""The program of a preflight's work in a framework's process."""

from ..record.child import serve
from .jobs import Job
from .work import do

if __name__ == "__main__":
    serve(do, Job)
