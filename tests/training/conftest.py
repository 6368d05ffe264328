"""The models here are tiny, so one thread is enough."""

from tests import one_thread as threads

one_thread = threads.one_thread
