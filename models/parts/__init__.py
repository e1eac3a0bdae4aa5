"""What the models are made of: a folder for each that has parts of its own, and beside them what several share.

``models/NAME.py`` is the accelerator: its engines and what they account for. ``parts/NAME`` has its configuration
(``config``), recurrences (``timing``), the units as processes (``units``), its numbers (``values``).
"""
