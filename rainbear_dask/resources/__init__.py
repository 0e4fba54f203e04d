"""The resources of a process: settings, limits, buffer pool, caches, threads."""
