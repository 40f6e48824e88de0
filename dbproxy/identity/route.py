"""Where a certificate leads: the database that Teleport connects its holder to."""

from dataclasses import dataclass

__all__ = ["Route"]


@dataclass(frozen=True, slots=True)
class Route:
    """The database route in a certificate's subject (`RouteToDatabase`, lib/tlsca/ca.go).

    Attributes:
        service: The name of the Teleport database resource, for example `example-server`.
        protocol: Teleport's name of the wire protocol (`postgres`, `mysql`, …); empty when the
            certificate names none.
        username: The database user that the certificate is limited to, if it names one.
        database: The database name that the certificate is limited to, if it names one.
        roles: The database roles asked for with automatic user provisioning.
    """

    service: str
    protocol: str
    username: str | None
    database: str | None
    roles: tuple[str, ...] = ()
