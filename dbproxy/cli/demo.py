"""`dbproxy demo`: the Machine ID guide on this machine."""

import click

__all__ = ["demo"]


@click.command(short_help="Show everything on this machine, with a stand-in for Teleport.")
@click.option("--keep", is_flag=True, help="Stay up at the end and print psql lines to paste.")
@click.pass_context
def demo(context: click.Context, /, *, keep: bool) -> None:
    """Follow Teleport's Machine ID guide on this machine, step by step.

    It starts a stand-in for a Teleport cluster and an embedded PostgreSQL, both on loopback and in
    a temporary directory; creates a role and a bot; keeps certificates fresh as tbot does; runs
    dbproxy in each of its three modes; and connects with a real driver.

    It takes a few seconds, and nothing is left behind. Ctrl-C ends it at any time.

    Needs the extra `demo`: pip install '/path/to/checkout[demo]'
    """
    import trio  # late, so that the help comes quickly

    from dbproxy.lab.demo.requirements import check_requirements
    from dbproxy.lab.errors import LabError

    try:
        check_requirements()
    except LabError as error:
        raise click.ClickException(str(error)) from error
    from dbproxy.lab.demo.narrator import DemoConsole, Narrator
    from dbproxy.lab.demo.performance import Performance

    context.exit(trio.run(Performance(Narrator(DemoConsole()), keep=keep).run))
