"""Tiny models here: one thread."""

from tests import one_thread as threads

one_thread = threads.one_thread
