"""From a predicate to a selection to tasks, with counts and limits."""
