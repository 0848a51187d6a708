"""`python -m gateway` is the `gateway` command; the supervisor starts its workers this way."""

from gateway.cli import app

if __name__ == "__main__":
    app(prog_name="gateway")
