"""Which scheme each component takes, and which layers stay out of INT8: decided by measurement.

calls.py         a recorded call of a graph, as measurements need it
fastest.py       the fastest of a component's possible schemes on this machine
logits.py        how far logits are from the reference's
sensitivity.py   how much each layer of the transformer suffers from INT8, and the fewest to leave out
"""
