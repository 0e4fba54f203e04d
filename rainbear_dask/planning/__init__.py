"""Predicate to selection to tasks, with counts and limits."""
