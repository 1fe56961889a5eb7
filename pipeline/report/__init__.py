"""Plots, contact sheets and the HTML report."""
