"""Checks of backend `local` on an accelerator that need torch, transformers and PEFT alone."""
