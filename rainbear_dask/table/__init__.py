"""A group as a tidy table: columns, coordinates, the order of rows."""
