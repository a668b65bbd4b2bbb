PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
ifndef DEVICE
DEVICE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
endif
ifeq ($(filter cpu cuda,$(DEVICE)),)
$(error DEVICE must be cpu or cuda, not $(DEVICE))
endif

comma := ,
EXTRAS ?=
EXTRA_STAMPS = $(patsubst %,$(VENV)/.%-$(DEVICE),$(subst $(comma), ,$(EXTRAS)))
OTHER_RUNTIME = $(if $(filter cuda,$(DEVICE)),onnxruntime,onnxruntime-gpu)
OTHER_DEVICE = $(if $(filter cuda,$(DEVICE)),cpu,cuda)
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
SERVE_EXTRAS = $(DEVICE)
TEST_EXTRAS = $(DEVICE),bulk,training,test
CHECK_EXTRAS = $(DEVICE),bulk,training,benchmarks,test,page,check

.PHONY: help serve training test test-page screenshots docs reference alerts clients oracle stores ray kubernetes check format lock audit clean

help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 13

serve: $(VENV)/.serve-$(DEVICE) $(EXTRA_STAMPS)  ## Serve the shipped models (HOST, PORT, DEVICE=cuda|cpu, EXTRAS=grpc,stores)
	@exec $(VENV)/bin/python -m service serve --host $(HOST) --port $(PORT) --device $(DEVICE)

training: $(VENV)/.training-$(DEVICE)  ## Install what training needs

test: $(VENV)/.test-$(DEVICE)  ## Run all tests, on all cores
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-page: $(VENV)/.test-$(DEVICE) $(VENV)/.page-$(DEVICE)  ## Test the playground in Chromium, which is installed if apt-get can
	tools/get-chromium
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m "" -rP tests/page

screenshots: $(VENV)/.test-$(DEVICE) $(VENV)/.page-$(DEVICE)  ## Draw docs/assets/playground-*.webp, and measure the page
	tools/get-chromium
	$(VENV)/bin/python -m tests.page.screenshots

alerts:  ## Test the alert rules with Prometheus's promtool
	cd deploy/monitoring && ../../tools/promtool check config prometheus.yml && ../../tools/promtool test rules alerts_test.yml

clients: $(VENV)/.serve-$(DEVICE) $(VENV)/.grpc-$(DEVICE)  ## Run the examples that need other clients and libraries
	tools/check-clients $(VENV)/bin/python

stores: $(VENV)/.test-$(DEVICE)  ## Test the stores of models on S3, by the server of moto
	tools/check-stores $(VENV)/bin/python

ray: $(VENV)/.test-$(DEVICE) $(VENV)/.ray-$(DEVICE)  ## Test the bulk command on Ray, also on S3 by the server of moto
	tools/check-ray $(VENV)/bin/python

oracle: $(VENV)/.serve-$(DEVICE)  ## Compare the responses under /v2 with MLServer's
	tools/check-oracle $(VENV)/bin/python

kubernetes: $(VENV)/.serve-$(DEVICE)  ## Check the chart and the manifests with Helm, schemas and Envoy
	tools/check-kubernetes $(VENV)/bin/python

check: docs  ## Check style, types, layers, and what the image installs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	tools/make-messages $(VENV)/bin/python --check
	tools/check-install $(VENV)/bin/python
	tools/check-client $(VENV)/bin/python

# Not --quiet, with which MkDocs counts no warnings.
docs: $(VENV)/.check-$(DEVICE)  ## Build the site of the documentation: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build

reference: $(VENV)/.check-$(DEVICE)  ## Write the pages and the drawing that are made from the code
	$(VENV)/bin/python -m tools.docs_site.reference

format: $(VENV)/.check-$(DEVICE)  ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

LOCK = $(VENV)/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-annotate \
	--custom-compile-command "make lock"
IMAGE_EXTRAS = --extra grpc --extra stores --extra tracing

lock: $(VENV)/bin/python  ## Renew constraints.txt, the versions of all packages, and requirements/ of the images
	$(PIP) install --quiet uv
	$(LOCK) --all-extras --output-file constraints.txt pyproject.toml
	$(LOCK) --generate-hashes --constraints constraints.txt --extra cpu $(IMAGE_EXTRAS) \
		--output-file requirements/cpu.txt pyproject.toml
	$(LOCK) --generate-hashes --constraints constraints.txt --extra cuda $(IMAGE_EXTRAS) \
		--output-file requirements/cuda.txt pyproject.toml
	echo cyclonedx-bom | $(LOCK) --generate-hashes --output-file requirements/sbom.txt -

audit: $(VENV)/bin/python  ## Ask for known vulnerabilities of what the images install (needs the internet)
	$(PIP) install --quiet pip-audit
	$(VENV)/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements/cpu.txt --requirement requirements/cuda.txt

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@rm -f $(VENV)/.*-cpu $(VENV)/.*-cuda
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	else $(PYTHON) -m venv --without-pip $(VENV) && tools/get-pip $(VENV) || { rm -rf $(VENV); exit 1; }; fi

# The two builds of ONNX Runtime fill the same directory: one must go before the other comes. Modules
# are compiled when they are first imported, because compiling all takes a minute. What the checks
# need includes what the tests need.
$(VENV)/.serve-$(DEVICE) $(VENV)/.test-$(DEVICE) $(VENV)/.check-$(DEVICE) $(sort $(VENV)/.training-$(DEVICE) $(VENV)/.grpc-$(DEVICE) $(VENV)/.page-$(DEVICE) $(VENV)/.ray-$(DEVICE) $(EXTRA_STAMPS)): $(VENV)/.%-$(DEVICE): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what '$*' needs for $(DEVICE) ..."
	@rm -f $(VENV)/.*-$(OTHER_DEVICE)
	@$(PIP) uninstall --quiet --yes $(OTHER_RUNTIME) 2>/dev/null
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[$(or $($(shell echo $* | tr a-z A-Z)_EXTRAS),$(DEVICE)$(comma)$*)]'
	@touch $@ $(if $(filter check,$*),$(VENV)/.test-$(DEVICE) $(VENV)/.page-$(DEVICE))
