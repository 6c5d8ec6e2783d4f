"""What backend `tinker` needs to know of Tinker's service."""
