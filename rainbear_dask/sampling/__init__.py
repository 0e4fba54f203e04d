"""Values of a table at points: nearest cells, interpolation, each chunk read once."""
