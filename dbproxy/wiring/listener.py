"""Where clients connect: what the protocol and the mode allow, and the listener itself."""

from pathlib import Path

from dbproxy.downstream import ListenAddress, Listener, TCPAddress, UnixAddress, open_listener
from dbproxy.errors import Code, ListenError, UsageError
from dbproxy.protocols import DatabaseProtocol
from dbproxy.settings import Mode, Settings

__all__ = ["check_listen_address", "open_listener_for"]


def check_listen_address(address: ListenAddress, protocol: DatabaseProtocol, mode: Mode) -> None:
    """Refuse a Unix socket that the protocol's clients could not use.

    Raises:
        UsageError: The mode needs TLS, or clients would not find the socket by its name.
    """
    if not isinstance(address, UnixAddress):
        return
    if mode is not Mode.TUNNEL:
        raise UsageError(
            f"{protocol.readable_name} clients do not use TLS on a Unix socket, and {mode} mode"
            " needs it",
            next_step="Add --tunnel (the socket's permissions decide who may connect), or"
            " listen on a TCP port.",
        )
    if protocol.port_of_socket(address.path.name) is None:
        raise _misnamed_socket(address.path, protocol)


def _misnamed_socket(path: Path, protocol: DatabaseProtocol) -> UsageError:
    directory = path if path.is_dir() else path.parent
    fitting = UnixAddress(directory / protocol.socket_name(protocol.default_port))
    pattern = protocol.socket_name("PORT")
    return UsageError(
        f"{protocol.readable_name} clients look for a Unix socket by the name {pattern}, and would"
        f" not find {path}",
        next_step=f"Listen on {fitting} instead.",
    )


async def open_listener_for(settings: Settings, address: ListenAddress) -> Listener:
    """Open the listener.

    Raises:
        ListenError: It cannot be opened; the next step names the option that was used.
    """
    try:
        return await open_listener(address)
    except ListenError as error:
        is_tcp = isinstance(address, TCPAddress)
        if settings.listen is None or not is_tcp or error.code is not Code.ADDRESS_IN_USE:
            raise
        next_step = "Choose another address with --listen."
        raise ListenError(error.code, error.message, next_step=next_step) from error
