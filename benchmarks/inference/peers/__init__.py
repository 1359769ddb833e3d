"""Programs that run in the interpreters of peers: the least that each peer's own documentation asks for."""
