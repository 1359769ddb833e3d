"""Where a project is and where its parts live: `millpond.toml`, profiles, environment."""
