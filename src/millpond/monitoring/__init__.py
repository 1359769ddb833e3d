"""What live traffic shows: whether served features are what training would have computed."""
