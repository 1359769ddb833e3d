"""The gRPC wire of the Open Inference Protocol, version 2.

Only what says whether it can be used is imported here: `millpond.server.grpc.server` needs the extra `grpc`.
"""

from millpond.server.grpc.extra import available, require

__all__ = ["available", "require"]
