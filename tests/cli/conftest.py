"""Tiny models here: one thread; and what the tests of builds share."""

from tests import one_thread as threads
from tests.export import conftest as builds

one_thread = threads.one_thread
contexts, small_bundle = builds.contexts, builds.small_bundle
