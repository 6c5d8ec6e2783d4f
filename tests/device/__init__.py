"""Checks on an accelerator that need torch, transformers and PEFT alone: backend `local`, and vLLM's operator."""
