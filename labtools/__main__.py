"""`python -m labtools doctor`: is the lab well?"""

import argparse
import sys

from labtools import doctor


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m labtools", description="Tools of the stellar spectroscopy lab.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("doctor", help="say what is installed, set, cached, reachable - and what is wrong")
    command.add_argument("--offline", action="store_true", help="ask no server")
    command.add_argument("--verify", action="store_true", help="compare every cached file with its checksum")
    options = parser.parse_args(arguments)
    return doctor.main(network=not options.offline, verify=options.verify)


if __name__ == "__main__":
    sys.exit(main())
