"""The door of `python -m export.build`, which is `hart-edge build`. The build itself is chain.py.

The checkout runs this file as it lies here, an installation as export/build.py of a package without an __init__.py.
"""

if __name__ == "__main__":
    from hart_edge.cli.main import build_main

    raise SystemExit(build_main())
