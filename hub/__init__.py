"""`load` a named model in any framework."""
