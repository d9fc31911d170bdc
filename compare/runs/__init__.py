"""Runs of training beside each other, or beside the reference of a recipe: the same within roundoff, and if not, from where."""
