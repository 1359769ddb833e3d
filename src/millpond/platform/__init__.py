"""The composition root: opens a project under a profile, joins ports to adapters, holds the use cases."""
