"""What every test stands on."""

from hypothesis import settings

settings.register_profile("npc", max_examples=30, deadline=None, derandomize=True)
settings.load_profile("npc")
