"""Versions of the platform database, applied by Alembic when it is opened."""
