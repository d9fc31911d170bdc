"""The MegEngine backend."""
