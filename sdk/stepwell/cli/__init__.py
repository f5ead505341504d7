"""The `stepwell` command: `main` is its entry point, `stepwell.cli.app` puts the commands together."""


def main() -> None:
    """Run the command line of this process and exit."""
    # Imported here, so that `import stepwell.cli` stays free for who only wants its parts.
    from stepwell.cli.app import app

    app(prog_name="stepwell")
