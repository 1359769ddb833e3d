"""The prediction log: answers are durable before they leave, and reach the lake as typed columns, once."""
