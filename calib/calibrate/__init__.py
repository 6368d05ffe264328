"""Activations of the real loop become ranges."""
