"""Trained models for others: the formats, the model card that goes with each, and the model as Python uses it."""
