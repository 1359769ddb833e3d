"""Live feature views: windows and latest values of an entity that are exact at every instant."""

from millpond.features.online.live.view import LiveView

__all__ = ["LiveView"]
