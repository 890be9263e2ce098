"""Vision-language pre-training with text-aware image mixing (TiMix)."""

__version__ = "0.1.0"
