"""Rows to many Parquet files, one task at a time, restartable."""
