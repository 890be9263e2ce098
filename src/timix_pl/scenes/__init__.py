"""The embedded data set: generated scenes with captions, boxes and known noise."""

from timix_pl.scenes.make import make_scenes

__all__ = ["make_scenes"]
