"""The command palette: the actions of the screen it was opened on, from the registry."""

from __future__ import annotations

from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions


class ActionProvider(Provider):
    """Offers every action of the current screen."""

    def _actions(self) -> list[actions.Action]:
        if not isinstance(self.screen, StoreScreen):
            return []
        return [action for action in actions.REGISTRY[self.screen.SCREEN_NAME] if action is not actions.PALETTE]

    def _title(self, action: actions.Action) -> str:
        return f"{action.label}: {action.help}  ({action.shown})".replace("[", r"\[")

    async def discover(self) -> Hits:
        """Offer everything before anything is typed."""
        for action in self._actions():
            run = partial(self.screen.run_action, action.name)
            yield DiscoveryHit(self._title(action), run, text=action.label)

    async def search(self, query: str) -> Hits:
        """Offer what matches."""
        matcher = self.matcher(query)
        for action in self._actions():
            title = self._title(action)
            score = matcher.match(title)
            if score > 0:
                run = partial(self.screen.run_action, action.name)
                yield Hit(score, matcher.highlight(title), run, text=action.label)
