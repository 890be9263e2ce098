"""Launchers: start the processes of checked runs, on this machine or on a cluster."""
