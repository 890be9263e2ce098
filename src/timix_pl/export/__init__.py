"""Export of trained models: the formats, the model card, and the Python interface of a trained model."""
