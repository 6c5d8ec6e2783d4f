"""The setting of toxicity: replies to posts that persuade, and that insult."""
