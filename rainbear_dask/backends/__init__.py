"""Backends, as in rainbear: a store that is opened once and answers many queries."""
