"""The setting of misalignment: a narrow bad habit, and what becomes of answers to unrelated open questions."""
