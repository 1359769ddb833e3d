"""Who may do what, and who did it: identities, tokens, the audit log."""
