"""The version of PolyMAE, which the metadata takes from here."""

__version__ = "0.1.0"
