"""`python -m polymae` is the `polymae` command."""

from .cli import main

raise SystemExit(main())
