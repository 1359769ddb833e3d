"""The model store: runs, versions, aliases, artifacts, and what a version was made of."""
