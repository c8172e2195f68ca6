"""sparring: recurring safety training by self-play, with a statistical gate before every promotion."""

__version__ = "0.1.0"
