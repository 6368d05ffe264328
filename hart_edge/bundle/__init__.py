"""The bundle: the folder that a build writes and a device runs, read, verified and written here and nowhere else.

- fields.py: JSON values in, checked Python values out
- manifest.py: manifest.json, its dataclasses and what they say about each other; manifest.schema.json for other tools
- plan.py: components, buffers and steps, the part of the manifest that a runner executes
- kept.py: what of a plan depends on the prompt alone, and what is kept of it
- plan_check.py: whether every step of a plan can run
- speeds.py: what the plans of a bundle's speeds have in common
- settings.py: how codes are drawn: a bundle's defaults, and what a caller may ask for instead
- target.py: what a bundle was made for, and what its engines need
- quality.py: how near the graphs come to the reference, the limits, and both in words
- files.py: size and SHA-256 of the files of a bundle
- links.py: where the files of a bundle lie; no link leads out of it
- unchanged.py: whether files are still those that were verified
- limits.py: the memory that this process may take: the machine's, or that of a container
- onnx_guard.py: a look into an ONNX file before an engine library sees it
- verify.py: a folder in, a verified Bundle out
- writer.py: the one writer, which gives a bundle its name when it is complete
- earlier.py: what bundles of earlier formats still tell, to build them again
- card.py: README.md, the model card
- arena.py: places in one block of memory for buffers that are not all alive at once
- program.py: a plan made ready for a device
- costs.py: costs.json: what every step of the plan takes, counted at the build
- memory.py: how much memory a bundle takes while it runs and is built
"""
