"""Launchers: a checked configuration and the words that make it -> processes, here or on a cluster, that run ``timix-train``."""
