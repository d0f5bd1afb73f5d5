"""Evaluation, second stage: from tables of scores to tables of metrics, figures and a page."""
