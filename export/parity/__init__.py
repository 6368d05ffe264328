"""Every graph is held against the reference."""
