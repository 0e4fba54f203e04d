"""Settings, limits, buffers, caches, openings and threads, which a process shares."""
