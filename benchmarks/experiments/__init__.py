"""Experiments that the paper has or leaves open, each one command at a size that two cores repeat (docs/evaluation.md).

notebook.py          results so far, on disk, so that an interrupted experiment can be resumed
paired.py            ways of drawing the same prompts, compared prompt by prompt
chart.py             curves with error bars as SVG
alternating.py       how often the discrete path is trained, against the quality of reconstructions by both paths
absolute.py          learned positions, for positions.py
positions.py         relative against absolute positions when training continues at a higher resolution
residual_steps.py    steps of the residual diffusion against quality, latency and multiply-accumulates
sparse_attention.py  the keys of all scales against those of the first ones and of the one before
"""
