# make: what there is to make. See README.md.
PYTHON ?= python3
SHELL := /bin/sh
# Two notebooks or tests run side by side, so each gets one thread: more would wait for each other and slow both down
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1
export PYTHONPATH := $(CURDIR):$(CURDIR)/packages$(if $(PYTHONPATH),:$(PYTHONPATH))

# The active environment if there is one (conda's base does not count), else .venv
ENV := $(or $(VIRTUAL_ENV),$(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX)),.venv)
PY := $(ENV)/bin/python
TORCH_INDEX = $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)
INSTALL = tools/install.sh $(ENV)
ASSIGNMENTS := $(wildcard notebooks/0[1-8]*.ipynb)
BEYOND := $(wildcard notebooks/09*.ipynb notebooks/1*.ipynb)

.PHONY: help lab beyond jupyter notebooks test lint bench doctor test-matrix fuzz figures course student handin site \
    test-browser coverage clean clean-old environment installed-lab installed-test

help:
	@echo "make lab        set up, run the eight notebooks of the assignments into build/, leave the checkpoint PDFs"
	@echo "                LAB_STUDENT='Your Name'; LAB_SURVEY=dr17: real spectra; TORCH=cpu: the CPU build of PyTorch"
	@echo "make beyond     run notebooks 09 to 12, which go beyond the assignments, into build/"
	@echo "make jupyter    JupyterLab on copies in build/work, so that the checkout stays as it is"
	@echo "make test       unit tests, and every notebook against its committed outputs; SLOWEST=20 names the slowest"
	@echo "make doctor     what is installed, which data are here, and what to do about what is wrong"
	@echo "make notebooks  run the notebooks in place, to refresh the outputs and figures that are committed"
	@echo "make lint       style, types and imports;  make coverage: share of lines that tests run;  make bench: speed"
	@echo "make test-matrix  notebooks and tests as on other machines (an hour and a half); ONLY=haswell: as on one of them"
	@echo "make student    build/student: questions and checks, no solutions;  make handin NAME='Your Name': PDFs to hand in"
	@echo "make course     build/course: an nbgrader assignment, and a bundle for students"
	@echo "make site       build/site/html: notebooks, reference, glossary;  make figures: all figures on one page"
	@echo "make test-browser  the lab in Chromium;  make fuzz: thousands of damaged files"
	@echo "make clean-old  list cached versions that newer ones have replaced, and ask;  make clean: build/ without anybody's work"

environment:
	@$(if $(filter .venv,$(ENV)),,echo "The active environment is used: $(ENV). For one of the lab's own, deactivate it first.")
	@$(or $(wildcard $(PY)),$(PYTHON)) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ...")'
	@test -x $(PY) || $(PYTHON) -m venv $(ENV)

installed-lab: environment
	@$(INSTALL) lab $(TORCH_INDEX)

installed-test: environment
	@$(INSTALL) test $(TORCH_INDEX)

lab: installed-lab
	$(PY) tools/run_notebooks.py --into build $(ASSIGNMENTS)

beyond: installed-lab
	$(PY) tools/run_notebooks.py --into build $(BEYOND)

jupyter: installed-lab
	mkdir -p build/work
	for one in notebooks/[0-9]*.ipynb; do test -e "build/work/$${one##*/}" || cp "$$one" build/work; done
	$(ENV)/bin/jupyter lab --notebook-dir=build/work

notebooks: installed-test
	$(PY) tools/run_notebooks.py

test: installed-test
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --nbval --nbval-cell-timeout=900 $(if $(SLOWEST),--durations=$(SLOWEST))

coverage: installed-test
	$(PY) -m pytest -q -n 2 --dist loadfile tests --cov --cov-report=term --cov-report=xml:build/coverage.xml

lint: installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(ENV)/bin/lint-imports
	$(PY) -m mypy
	$(PY) -m pytest -q -p no:nbval --doctest-modules labtools packages --ignore=packages/mock_survey/calibration

bench: installed-test
	$(PY) tools/bench.py

fuzz: installed-test
	LAB_FUZZ=3000 $(PY) -m pytest -q tests/test_fuzz.py tests/test_fuzz_jwst.py

figures: installed-lab
	$(PY) tools/contact_sheet.py

course: installed-test
	$(PY) -m lab_course course

student: installed-lab
	$(PY) -m lab_course student

handin: environment
	@$(INSTALL) lab,handin $(TORCH_INDEX)
	LAB_STUDENT="$(NAME)" $(PY) -m lab_course handin

site: environment
	@$(INSTALL) site,lab $(TORCH_INDEX)
	$(PY) tools/make_site.py

test-browser: site
	@$(INSTALL) browser,test $(TORCH_INDEX)
	$(PY) -m pytest -q tests/browser.py

doctor: installed-lab
	$(PY) -m lab_course doctor

test-matrix: installed-test
	$(PY) tools/machine_matrix.py $(ONLY)

clean-old: installed-lab
	$(PY) -m lab_course clean-old

clean:
	rm -rf build/figures build/site build/*.ipynb
