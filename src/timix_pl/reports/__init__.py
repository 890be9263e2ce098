"""A run directory as people read it: one self-contained HTML page, a comparison of several runs, a table for the terminal."""
