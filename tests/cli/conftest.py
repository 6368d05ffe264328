"""The models here are tiny, so one thread is enough. Also shares the fixtures of builds."""

from tests import one_thread as threads
from tests.export import conftest as builds

one_thread = threads.one_thread
contexts, small_bundle = builds.contexts, builds.small_bundle
