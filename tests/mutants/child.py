"""What polymae.compare.record.child.record_batch starts for runs with planted faults."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from mutants.recording import Mutant, record_of_many
    from polymae.compare.record.child import serve

    serve(record_of_many, Mutant)
