"""What `hart-edge COMMAND` does: one file a command, each with `run(arguments) -> exit status`, all of it printed.

hart_edge/cli/main.py declares the arguments and turns errors into messages.
"""
