"""A page in the browser: a clip becomes tokens, a caption and answers; a prompt becomes a video.

    pip install -e '.[app]' && python pipelines/app.py [--model shapes/vtok] [--port 7860]

MODEL is an export of ``pipelines/export.py``, or ``shapes/vtok``, the small model that comes with vtok.
"""

import argparse

from pipelines.cli.errors import user_errors
from vtok.config import require


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Try VTok in the browser.")
    parser.add_argument("--model", default="shapes/vtok", help="an export, or shapes/vtok (default)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at; 0 takes a free one (default: 7860)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("app"):
        arguments = parse_arguments(argv)
        require(0 <= arguments.port < 2**16, f"--port must lie in 0..65535, not {arguments.port}")

        from pipelines.inference.page import serve  # only now: this imports the libraries, which takes seconds

        serve(arguments)


if __name__ == "__main__":
    main()
