"""Features as of an instant: point-in-time joins, windows, training sets, request features."""
