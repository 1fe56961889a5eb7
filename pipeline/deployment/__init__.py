"""Use of a trained model: prediction by command, export, serving, and promotion in the registry."""
