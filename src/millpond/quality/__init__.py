"""Running data checks in the engine, and keeping their results."""
