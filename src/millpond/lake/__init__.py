"""The lake: tables with snapshots, ingest, and queries over pinned snapshots."""
