"""The open server that makes game and VR characters talk."""

__version__ = "0.1.0"
