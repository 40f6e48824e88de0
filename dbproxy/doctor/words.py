"""What a certificate says about its holder, in words."""

from collections.abc import Iterator, Sequence
from datetime import UTC

from dbproxy.identity import Route, Subject

__all__ = ["route_in_words", "subject_in_words"]


def subject_in_words(subject: Subject) -> Iterator[tuple[str, str]]:
    """What there is to say, each with a label; what the certificate leaves open is left out."""
    yield from _given(
        ("holder", _holder(subject)),
        ("cluster", _cluster(subject)),
        ("roles", ", ".join(subject.roles)),
        ("leads to", route_in_words(subject.route) if subject.route else "no database at all"),
        ("allows", _allowed(subject)),
        ("usage", _usage(subject.usage)),
        ("requests", ", ".join(subject.access_requests)),
        ("resources", subject.allowed_resources),
        ("only from", subject.pinned_ip),
        ("renewals", _renewals(subject)),
        ("generation", _generation(subject)),
        ("asked with", _previous(subject)),
        ("device", subject.device_asset_tag or subject.device_id),
    )


def route_in_words(route: Route) -> str:
    """Where a certificate leads."""
    protocol = f" ({route.protocol})" if route.protocol else ""
    user = f" as the database user {route.username}" if route.username else ""
    database = f", database {route.database}" if route.database else ""
    roles = f", with {_counted('database role', route.roles)}" if route.roles else ""
    return f"the service {route.service}{protocol}{user}{database}{roles}"


def _given(*lines: tuple[str, str | None]) -> Iterator[tuple[str, str]]:
    for label, text in lines:
        if text:
            yield label, text


def _holder(subject: Subject) -> str:
    name = subject.user or "nobody by name"
    bot = f", the bot {subject.bot_name}" if subject.bot_name else ""
    instance = f" (instance {subject.bot_instance_id})" if subject.bot_instance_id else ""
    kind = f", a {subject.user_type} user" if subject.user_type and not bot else ""
    asked = (
        f", asked for by {subject.impersonator}"
        if subject.impersonator and subject.impersonator != subject.user
        else ""
    )
    return f"{name}{bot}{instance}{kind}{asked}"


def _cluster(subject: Subject) -> str | None:
    if subject.route_to_cluster and subject.route_to_cluster != subject.cluster:
        return f"{subject.cluster or 'unknown'}, for use with {subject.route_to_cluster}"
    return subject.cluster


def _allowed(subject: Subject) -> str:
    names, users = subject.allowed_database_names, subject.allowed_database_users
    parts = [_counted("database", names)] if names else []
    parts += [_counted("database user", users)] if users else []
    return "; ".join(parts)


def _usage(usage: Sequence[str]) -> str:
    return f"only {', '.join(usage)}" if usage else ""


def _renewals(subject: Subject) -> str | None:
    if subject.renewable:
        return "the bot's own certificate, which renews itself"
    return (
        "none by the holder: only tbot can ask for the next" if subject.disallow_reissue else None
    )


def _generation(subject: Subject) -> str:
    """Teleport counts a bot's own certificates only, not those that it asks for by them."""
    return str(subject.generation) if subject.generation is not None else "not in the certificate"


def _previous(subject: Subject) -> str | None:
    if subject.previous_expiry is None:
        return None
    moment = subject.previous_expiry.astimezone(UTC)
    return f"a certificate that is valid until {moment:%Y-%m-%d %H:%M:%S} UTC"


def _counted(what: str, values: Sequence[str]) -> str:
    plural = "" if len(values) == 1 else "s"
    return f"the {what}{plural} {', '.join(values)}"
