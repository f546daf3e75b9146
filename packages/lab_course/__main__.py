"""What a class needs, from the command line: ``python -m lab_course doctor`` and others."""

import argparse
import shutil
import sys

from apogee_archive.cache import find_superseded
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
    command = commands.add_parser(
        "clean-old", help="list what newer versions of the lab have replaced, and ask to remove it"
    )
    command.add_argument("--yes", action="store_true", help="remove it without asking")
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
    return clean_old(options.yes)


def clean_old(sure=False):
    """List what newer versions have replaced in the data folder, and remove it after a question.

    Nothing is removed unless `sure` is true or a person answers "y". Returns the exit code, 0.
    """
    folder = data_folders()[0]
    old = find_superseded(folder)
    if not old:
        print(f"nothing in {folder} is superseded")
        return 0
    print(*old, sep="\n")
    question = f"Remove these {len(old)} things? [y/N] "
    if not sure and not (sys.stdin.isatty() and input(question).strip().lower() == "y"):
        print("nothing was removed; python -m lab_course clean-old --yes removes them")
        return 0
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"{len(old)} things removed from {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
