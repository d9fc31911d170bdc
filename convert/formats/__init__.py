"""How weights lie on disk: one module for each file format, reading and writing."""
