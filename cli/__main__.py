"""`python -m polymae.cli` is the `polymae` command."""

from . import main

raise SystemExit(main())
