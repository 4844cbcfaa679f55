"""Where the page can be reached: sockets, loopback, the addresses to print."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress

from irforge.errors import EnvironmentFault, UsageError


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at a name or address of this machine; port 0 takes one that is free.

    Raises:
        EnvironmentFault: the port is taken, or may not be had.
        UsageError: no address of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EnvironmentFault(
                f"port {port} of {host} is taken", "Give another by --port, or --port 0 for any that is free"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise EnvironmentFault(f"this user may not have port {port}", "Give one above 1023 by --port") from None
        raise UsageError(
            f"'{host}' is no address of this machine", "Give --host 127.0.0.1, or 0.0.0.0 for all of them"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def reachable(host: str) -> list[str]:
    """The hosts to name a socket bound to `host` by: where that is all addresses, the outward one and the name."""
    if host not in ("0.0.0.0", "::"):
        return [host]
    found = [socket.gethostname()]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Chooses a way and sends nothing; the address is one that no network uses (RFC 5737).
        probe.connect(("192.0.2.1", 9))
        found.insert(0, probe.getsockname()[0])
    return found
