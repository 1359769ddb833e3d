"""Features online: what a request reads, kept equal to what a point-in-time join would compute."""
