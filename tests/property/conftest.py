"""Settings of every property test: no deadline, since a shared machine is slow at times."""

from hypothesis import settings

settings.register_profile("property", deadline=None)
settings.load_profile("property")
