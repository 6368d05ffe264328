"""The paper's first experiments at a size that two CPU cores can repeat, each one command (docs/evaluation.md).

notebook.py        what has been measured so far, on disk: an interrupted experiment goes on
chart.py           curves with error bars as SVG
alternating.py     how often the discrete path is trained, against how pictures come back by both
positions.py       relative against absolute positions when moving to a higher resolution
residual_steps.py  steps of the residual diffusion against quality, latency and multiply-accumulates
"""
