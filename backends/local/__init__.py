"""Backend `local`: any causal LM that transformers loads, on this machine."""
