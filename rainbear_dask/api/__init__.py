"""The public functions: they check what they are given, and hand on."""
