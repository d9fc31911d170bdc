"""What polymae.compare.preflight starts for its work in a framework's process with a planted fault: the name is its argument."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    from mutants.planting import planted
    from preflight_faults import FAULTS

    from polymae.compare.options import Run
    from polymae.compare.preflight.jobs import Job
    from polymae.compare.preflight.work import do
    from polymae.compare.record.child import serve

    def do_with_fault(run: Run) -> None:
        with planted(FAULTS[sys.argv[1]], run.framework):
            do(run)

    serve(do_with_fault, Job)
