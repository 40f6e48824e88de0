"""A worker that does what a test wants; run as a script, with one behaviour for each worker.

    python stand_in_worker.py BEHAVIOUR...

The first worker takes the first behaviour, and so on; the last one is for all that follow. It knows
the channel only by its lines, and loads nothing of dbproxy, so it begins quickly.

serve            is ready, drains 2 connections when told, and ends 1 of them early
crash            ends with status 7 before it is ready
crash-later      is ready, and is killed
mistake          says that the certificate has expired
rubbish          is ready, and says what no worker says
asked            is ready, and ends well by itself
deaf             is ready, and never listens
slow             is never ready, and ends when it is told to stop
"""

import json
import os
import signal
import socket
import sys
import time


class StandIn:
    """What a worker has been given, and what it does with it."""

    def __init__(self) -> None:
        handover = json.loads(os.environ["DBPROXY_HANDOVER"])
        self.number: int = handover["worker"]
        self.channel = socket.socket(fileno=handover["channel"])

    def say(self, kind: str, **fields: object) -> None:
        self.channel.sendall(json.dumps({"kind": kind} | fields).encode() + b"\n")

    def obey(self) -> None:
        """Do as a worker with two connections does, until told to end."""
        with self.channel.makefile("rb") as lines:
            for line in lines:
                match json.loads(line)["kind"]:
                    case "reload":
                        sys.stderr.write(f"worker {self.number} reloads\n")
                    case "stop":
                        self.say("draining", open_connections=2)
                        self.say("stopped", ended_early=1)
                        return
                    case "stop-now":
                        self.say("stopped", ended_early=2)
                        return

    def behave(self, behaviour: str) -> int:
        """Returns the exit status."""
        if behaviour not in {"crash", "mistake", "slow"}:
            self.say("ready")
        match behaviour:
            case "serve" | "slow":
                self.obey()
            case "crash":
                return 7
            case "crash-later":
                os.kill(os.getpid(), signal.SIGKILL)
            case "mistake":
                self.say(
                    "mistaken", code="certificate-expired", message="it is over", next_step="Wait."
                )
            case "rubbish":
                self.channel.sendall(b"ready\n")
                self.obey()
            case "deaf":
                time.sleep(600)
        return 0


def main(behaviours: list[str]) -> int:
    stand_in = StandIn()
    return stand_in.behave(behaviours[min(stand_in.number, len(behaviours)) - 1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
