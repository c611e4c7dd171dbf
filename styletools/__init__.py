"""styletools: neural style transfer as small Unix commands."""

__version__ = "0.1.0"
