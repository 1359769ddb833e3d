"""Answering: from a question to a logged answer, whichever version, tier and process that takes."""
