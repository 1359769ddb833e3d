"""Answering over HTTP: Millpond and other model servers with the same models, the same client and one core each."""
