"""Which version answers a request, what is counted of its answers, and what follows from the counts."""
