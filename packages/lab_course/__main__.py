"""`python -m labtools doctor`: is the lab well? `python -m labtools clean-old`: remove what is no longer used."""

import argparse
import sys

from labtools.cache import remove_old
from labtools.settings import data_folders


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m labtools", description="Tools of the stellar spectroscopy lab.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("doctor", help="say what is installed, set, cached, reachable - and what is wrong")
    command.add_argument("--offline", action="store_true", help="ask no server")
    command.add_argument("--verify", action="store_true", help="compare every cached file with its checksum")
    commands.add_parser("clean-old", help="remove cached versions that newer ones have replaced, and leftovers")
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        from labtools import doctor

        return doctor.main(network=not options.offline, verify=options.verify)
    folder = data_folders()[0]
    gone = remove_old(folder.rglob("*"))
    print(*(f"removed {path}" for path in gone), f"{len(gone)} things removed from {folder}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
