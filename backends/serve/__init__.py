"""`windowshift serve`: the local backend behind the OpenAI API, for files, fine-tuning and chat."""
