"""What a user declares. Pure: nothing here reads a file, a table or the environment."""
