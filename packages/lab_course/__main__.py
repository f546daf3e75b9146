"""``python -m lab_course doctor | clean-old | student | handin``: what a class needs from the command line."""

import argparse
import sys

from apogee_archive.cache import remove_old
from apogee_archive.settings import data_folders


def main(arguments=None):
    """Run one of the commands; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lab_course", description="Tools of the stellar spectroscopy lab."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "doctor", help="say what is installed, set, cached, reachable - and what is wrong"
    )
    command.add_argument("--offline", action="store_true", help="ask no server")
    command.add_argument(
        "--verify", action="store_true", help="compare every cached file with its checksum"
    )
    commands.add_parser(
        "clean-old", help="remove cached versions that newer ones have replaced, and leftovers"
    )
    commands.add_parser("student", help="write the student version of the notebooks")
    commands.add_parser("course", help="write an nbgrader assignment, and a bundle for students")
    commands.add_parser("handin", help="write the checkpoint PDFs and the write-up")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "doctor":
        from lab_course import doctor

        return doctor.main(network=not options.offline, verify=options.verify)
    if options.command == "course":
        from lab_course import course

        return course.main(rest)
    if options.command == "student":
        from lab_course import student

        return student.main(rest)
    if options.command == "handin":
        from lab_course import submission

        return submission.main(rest)
    folder = data_folders()[0]
    gone = remove_old(folder.rglob("*"))
    print(
        *(f"removed {path}" for path in gone), f"{len(gone)} things removed from {folder}", sep="\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
