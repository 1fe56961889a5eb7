"""Metrics, test-time augmentation and prediction."""
