"""hart-edge in ComfyUI: load a bundle or name a server, then generate, with a preview of every scale. README.md says
how.

nodes.py    what ComfyUI shows and calls
sources.py  where pictures come from: a bundle in this process, or a server
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
