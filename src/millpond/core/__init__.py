"""What every room may use: errors, names, time, fingerprints, ids. Standard library only."""
