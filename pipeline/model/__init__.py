"""Backbones, heads, layer groups and their weights."""
