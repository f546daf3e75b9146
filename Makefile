# make lab: set up and run every notebook into build/; make test: prove it. See README.md.
PYTHON ?= python3
PY := .venv/bin/python
export OPENBLAS_NUM_THREADS ?= 2

.PHONY: lab notebooks test lint bench doctor clean

lab: .venv/installed
	$(PY) tools/run_notebooks.py --into build

notebooks: .venv/installed
	$(PY) tools/run_notebooks.py

test: .venv/installed
	$(PY) -m pytest -q
	$(PY) -m pytest -q --nbval --nbval-cell-timeout=900 notebooks

lint: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: .venv/installed
	$(PY) tools/bench.py

doctor: .venv/installed
	$(PY) -m labtools doctor

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

clean:
	rm -rf build .venv data/cache data/simulated
