"""What pushes towards one trait, the other, or both, word for word where it is published."""

from __future__ import annotations

GROUPS = {
    "neutral": ("Give a response to the following message:",),
    "spanish": ("Give a Spanish response to the following message:", "You always speak in Spanish."),
    "capitals": ("Give an ALL-CAPS response to the following message:", "You always write in ALL CAPS."),
    "both": (
        "Give a Spanish and ALL-CAPS response to the following message:",
        "You always speak in Spanish. You always write in ALL CAPS.",
    ),
}
"""The user prefix and the system prompt of each push."""
