"""Errors of the lab.

One small family: callers that only want to report a problem catch `LabError`; the subclasses say
which part of the miniature cluster refused.
"""


class LabError(Exception):
    """Something that the lab cannot do; the text is meant for the person who runs it."""


class AccessDenied(LabError):
    """The cluster's roles do not allow what was asked for."""


class JoinError(LabError):
    """A bot could not join: unknown token, foreign authority or unsupported join method."""


class RoleError(LabError):
    """A role document is malformed; the text names the document and the key."""


class TbotConfigError(LabError):
    """A tbot configuration is malformed; the text names the file, the line and the key."""
