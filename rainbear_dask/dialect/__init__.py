"""SQL beyond Polars: stores as tables, parameters, geometry."""
