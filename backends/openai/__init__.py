"""The parts of backend `openai`: options, keys, faults, pacing, chat, batches and fine-tuning jobs."""
