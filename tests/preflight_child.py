"""What polymae.compare.preflight starts for its work in a framework's process, with planted faults.

The fault is that of a job, or that which the argument names.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    from mutants.planting import planted
    from preflight_faults import FAULTS
    from preflights import Mutant

    from polymae.compare.options import Run
    from polymae.compare.preflight.work import do
    from polymae.compare.record.child import serve
    from polymae.training import reading

    def do_with_fault(run: Run) -> None:
        fault = sys.argv[1] if len(sys.argv) > 1 else getattr(run, "fault", "none")
        with planted(FAULTS[fault], run.framework):
            reading._parser.cache_clear()  # it holds the class Recipe of the job before
            do(run)

    serve(do_with_fault, Mutant)
