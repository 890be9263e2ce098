"""Reports for readers: a self-contained HTML page per run, a comparison of several runs, and a table for the terminal."""
