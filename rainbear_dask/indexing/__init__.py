"""Index positions: sets, boxes, selections, chunk grids. It imports only NumPy."""
