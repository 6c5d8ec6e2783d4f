"""The plan: a spec as a graph of content-hashed jobs, and what they cost."""
