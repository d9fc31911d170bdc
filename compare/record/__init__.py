"""Recording: one run of one framework, in a process of its own, as a trace."""
