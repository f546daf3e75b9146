"""Every command that the README names is run by CI, or by a test named here."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
STEPS = "\n".join(step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"])
IN_TESTS = {  # commands that wait for a user, or that change the checkout: command -> its test
    "jupyter": "browser.py",
    "notebooks": "test_runner.py",
    "handin": "test_writeup.py",
}
COMMANDS = sorted(set(re.findall(r"make ([a-z][a-z-]+)\b", README)) - {"what"})


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_readme_is_run(command):
    if command in IN_TESTS:
        assert (ROOT / "tests" / IN_TESTS[command]).is_file()
    else:
        assert re.search(rf"make [a-z -]*\b{command}\b", STEPS), command


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_a_target(command):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command}:", makefile, flags=re.M)


def test_ci_here_runs_the_two_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("lint", "lab", "test"):
        assert re.search(rf"^make .*\b{command}\b", script, flags=re.M)
