"""Index positions: sets, boxes, selections, chunk grids. NumPy alone."""
