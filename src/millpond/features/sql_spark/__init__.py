"""Point-in-time joins in Spark's SQL: one module a form of computation, `join` puts them together.

Spark pays for each shuffle, sort and query, and computes a common table expression as often as it is named. So a
view is one query of running frames (`sweep`), without joins; RANGE frames and joins on tiles cost several times more.
"""
