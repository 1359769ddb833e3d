"""Process lanes: a version's own code in a child process behind a batching queue, in an environment of its own."""
