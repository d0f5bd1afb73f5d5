"""The detector as a web service: JSON for programs, one page for people, nothing written to disk."""

from apn.server.app import create_app, serve
from apn.server.settings import ServerSettings

__all__ = ["ServerSettings", "create_app", "serve"]
