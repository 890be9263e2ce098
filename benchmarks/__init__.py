"""Measurements, each side by side with the thing it is compared to."""
