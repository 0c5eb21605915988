"""The figures of ``adv-plugins plot``, one module for each kind."""
