"""The HTTP face: one port for console, API, inference, tracking and metrics."""
