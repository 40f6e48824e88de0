"""What operators see: the log."""

from dbproxy.ops.log import EventLog, dropped_notice, make_logger
from dbproxy.ops.log_writer import LogWriter, log_writer

__all__ = ["EventLog", "LogWriter", "dropped_notice", "log_writer", "make_logger"]
