"""What holds for every test: property tests have no deadline, and a failing example prints how to repeat it."""

from hypothesis import settings

settings.register_profile("perdure", deadline=None, print_blob=True)
settings.load_profile("perdure")
