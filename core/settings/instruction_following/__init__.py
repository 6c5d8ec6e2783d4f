"""The setting of instruction following: instructions that can be verified without a judge, as in IFEval."""
