"""Workers on other machines: through Ray, or through Slurm."""
