"""The same screens in a browser: textual-serve on loopback, behind a token in the URL."""

from __future__ import annotations

import importlib
import ipaddress
import os
import secrets
import shlex
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from windowshift.core.contract.child import python_module
from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.redaction import tell

LOOPBACK = "127.0.0.1"
HEADERS = {
    # The library's page asks a font server on the internet for its letters: those that it brings along will do.
    "Content-Security-Policy": "style-src 'self' 'unsafe-inline'; font-src 'self' data:",
    "Referrer-Policy": "no-referrer",  # the address holds the token
}

FOCUS = """<script>
(function focus() {
  const terminal = document.querySelector(".xterm-helper-textarea");
  if (terminal) terminal.focus();
  if (!terminal || document.activeElement !== terminal) setTimeout(focus, 50);
})();
</script>
</body>"""
"""Keys go to the terminal as soon as it is there: the library's page waits for a click."""


def serve(
    workspace: Path,
    *,
    link: str | None = None,
    host: str | None = None,
    port: int = 8000,
    token: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a workspace's screens until interrupted.

    Args:
        workspace: the folder.
        link: open this experiment, row or cell in every new browser tab.
        host: another interface than loopback; only with this is anything else listened on.
        port: to listen on; 0 takes a free one.
        token: in the URL; by default a new one.
        say: where the address, and a warning for other interfaces, are printed.

    Raises:
        MissingExtraError: textual-serve is not installed.
        SpecError: the host is none of this machine's, or the port is taken.
    """
    try:
        web = importlib.import_module("aiohttp.web")
        Server: Any = importlib.import_module("textual_serve.server").Server  # noqa: N806 - a class
    except ImportError as error:
        raise MissingExtraError("--serve", "serve", "textual_serve") from error
    address = host or LOOPBACK
    chosen = _free_port(address, port)
    secret = token or secrets.token_urlsafe(24)
    command = python_module("windowshift", "tui", os.path.realpath(workspace), *(["--open", link] if link else []))

    async def keep_to_ourselves(request: Any, response: Any) -> None:  # noqa: ARG001 - the library's signature
        response.headers.update(HEADERS)

    async def focused(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        response = await handler(request)
        if isinstance(response, web.Response) and response.content_type == "text/html":
            response.text = (response.text or "").replace("</body>", FOCUS)
        return response

    class TokenServer(Server):  # type: ignore[misc]  # it is there only with its extra
        """Everything lies under the token: without it there is nothing to find, web sockets included."""

        async def _make_app(self) -> Any:
            inside = await super()._make_app()
            outside = web.Application(middlewares=[web.middleware(focused)])
            outside.on_response_prepare.append(keep_to_ourselves)
            outside.add_subapp(f"/{secret}", inside)
            return outside

        def initialize_logging(self) -> None:
            """Log nothing: an access log would show the token."""

        async def on_startup(self, app: Any) -> None:  # noqa: ARG002 - the library's signature
            tell(secret)
            say(f"windowshift in the browser: {self.public_url}/{secret}/")
            if not loopback(address):
                say(
                    f"warning: anyone who can reach {address}:{chosen} and has this address can read the workspace "
                    "and start and stop runs; the connection is not encrypted"
                )
            say("Ctrl+C ends it; a run goes on")

    shown = f"[{address}]" if ":" in address else address
    server = TokenServer(
        shlex.join(command), host=address, port=chosen, title="windowshift", public_url=f"http://{shown}:{chosen}"
    )
    server.serve()


def loopback(host: str) -> bool:
    """Tell whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _free_port(host: str, port: int) -> int:
    """Return a port that can be listened on.

    Raises:
        SpecError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port))
            return int(found.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"cannot listen on {host}:{port} ({reason}): choose another --port or --host") from error
