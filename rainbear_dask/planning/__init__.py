"""Predicate to selection to tasks; counts and limits."""
