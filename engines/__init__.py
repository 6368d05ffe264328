"""A graph becomes an engine: one file per engine library behind the protocol of base.py."""
