"""Accuracy, speed and cost beside others. Run by hand; never a timed test."""
