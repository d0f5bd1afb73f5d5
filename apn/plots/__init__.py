"""Figures of a table of embeddings: maps of points, averages by generator, an interactive page."""
