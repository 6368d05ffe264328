"""Experiments of the paper at a size that two CPU cores can repeat, each one command (docs/evaluation.md).

notebook.py        results so far, on disk, so that an interrupted experiment can be resumed
chart.py           curves with error bars as SVG
alternating.py     how often the discrete path is trained, against the quality of reconstructions by both paths
positions.py       relative against absolute positions when training continues at a higher resolution
residual_steps.py  steps of the residual diffusion against quality, latency and multiply-accumulates
"""
