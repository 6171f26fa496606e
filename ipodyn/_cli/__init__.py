"""The command line, `ipodyn`."""

import sys


def main() -> None:
    """The entry point: sets the CPU up, runs the command, leaves with its exit code."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        print("ipodyn: the command line needs typer and rich: pip install 'ipodyn[cli]'", file=sys.stderr)
        sys.exit(2)
    from .._engine.cpu import configure_cpu
    from .app import run

    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without Greek letters is no reason to stop
    configure_cpu()
    sys.exit(run(sys.argv[1:]))
