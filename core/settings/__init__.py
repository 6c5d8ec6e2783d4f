"""Settings: what an experiment is about, its prompts, behaviours and conditions."""
