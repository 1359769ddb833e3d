"""Point-in-time joins in DuckDB's SQL: one module a form of computation, `join` puts them together."""
