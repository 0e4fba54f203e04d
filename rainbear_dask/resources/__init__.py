"""What a process may use, and what it shares: settings, limits, buffers, caches, threads."""
