"""Reports for users: the report and the picture of a plan, progress bars, versions."""
