"""Training of the judge of hart-edge eval."""
