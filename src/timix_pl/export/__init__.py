"""Trained models for others: one file per format, the model card that goes with each, and the model as Python uses it."""

FORMATS = ("open_clip", "hf", "safetensors", "onnx")
