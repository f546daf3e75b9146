# make: what there is to make. See README.md.
PYTHON ?= python3
SHELL := /bin/sh
export OPENBLAS_NUM_THREADS ?= 2

# The active environment if there is one (conda's base does not count), else .venv
ENV := $(or $(VIRTUAL_ENV),$(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX)),.venv)
PY := $(ENV)/bin/python
INSTALLED := $(ENV)/.lab-installed
TORCH_INDEX = $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)

.PHONY: help lab jupyter notebooks test lint bench doctor test-matrix fuzz figures student handin site test-browser clean clean-old

help:
	@echo "make lab        set up, run every notebook into build/ (first time a quarter of an hour and 3.3 GB, then 5 minutes)"
	@echo "                TORCH=cpu: the CPU build of PyTorch; LAB_SURVEY=dr17: real spectra; LAB_STUDENT='Your Name'"
	@echo "make jupyter    JupyterLab on copies in build/work, so that the checkout stays as it is"
	@echo "make test       unit tests, and every notebook against its committed outputs (9 to 18 minutes)"
	@echo "make doctor     what is installed, which data are here, and what to do about what is wrong"
	@echo "make notebooks  run the notebooks in place, to refresh the outputs and figures that are committed"
	@echo "make lint       style and imports;  make bench: speed"
	@echo "make test-matrix   notebooks and tests as on other machines (hours); ONLY=haswell: as on one of them"
	@echo "make student    build/student: questions and checks, no solutions;  make handin NAME='Your Name': PDFs to hand in"
	@echo "make site       build/site/html: notebooks, reference, glossary;  make figures: all figures on one page"
	@echo "make test-browser    the lab in Chromium;  make fuzz: thousands of damaged files"
	@echo "make clean-old  remove cached versions that newer ones have replaced;  make clean: all that was made"

lab: announced $(INSTALLED)
	$(PY) tools/run_notebooks.py --into build

.PHONY: announced
announced:
	@echo "1. Python packages in $(ENV): $(if $(wildcard $(INSTALLED)),installed,2.1 GB and about 4 minutes)"
	@echo "2. Data in $${LAB_DATA:-data}, made when a notebook asks for them: 1.2 GB"
	@echo "3. Nine notebooks, executed into build/: about 5 minutes, 10 where data are made"
	@echo

jupyter: $(INSTALLED)
	mkdir -p build/work
	for one in notebooks/[0-9]*.ipynb; do test -e "build/work/$${one##*/}" || cp "$$one" build/work; done
	$(ENV)/bin/jupyter lab --notebook-dir=build/work

notebooks: $(INSTALLED)
	$(PY) tools/run_notebooks.py

test: $(INSTALLED)
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --nbval --nbval-cell-timeout=900

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(ENV)/bin/lint-imports

bench: $(INSTALLED)
	$(PY) tools/bench.py

fuzz: $(INSTALLED)
	LAB_FUZZ=3000 $(PY) -m pytest -q tests/test_fuzz.py tests/test_fuzz_jwst.py

figures: $(INSTALLED)
	$(PY) tools/contact_sheet.py

student: $(INSTALLED)
	$(PY) -m lab_course student

handin: $(INSTALLED)
	LAB_STUDENT="$(NAME)" $(PY) -m lab_course handin

site: $(INSTALLED)
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[site]"
	$(PY) tools/make_site.py

test-browser: $(INSTALLED)
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[browser]"
	$(PY) -m pytest -q tests/browser.py

doctor: $(INSTALLED)
	$(PY) -m lab_course doctor

test-matrix: $(INSTALLED)
	$(PY) tools/machine_matrix.py $(ONLY)

$(INSTALLED): pyproject.toml constraints.txt
	@$(if $(filter .venv,$(ENV)),,echo "The active environment is used: $(ENV). For one of the lab's own, deactivate it first.")
	@$(or $(wildcard $(PY)),$(PYTHON)) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ...")'
	test -x $(PY) || $(PYTHON) -m venv $(ENV)
	$(PY) -m pip install --disable-pip-version-check $(TORCH_INDEX) -c constraints.txt -e ".[test]"
	@touch $@

clean-old: $(INSTALLED)
	$(PY) -m lab_course clean-old

clean:
	rm -rf build .venv data/cache data/simulated
