"""Build the objects of a run from a checked configuration."""
