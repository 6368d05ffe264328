"""Which scheme and which layers: decided by measurement."""
