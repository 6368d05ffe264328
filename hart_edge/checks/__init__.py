"""Checks of what is there: golden records, engines on a GPU, speed, arithmetic."""
