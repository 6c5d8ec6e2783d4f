"""The parts of backend `vllm`."""
