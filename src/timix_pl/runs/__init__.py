"""What the commands do with a checked configuration."""
