"""Index positions: sets, boxes, selections and chunk grids, with NumPy alone."""
