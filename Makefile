# make demo      restyle a photograph with three bundled styles into demo/  (PHOTO=mine.jpg takes yours)
# make test      run the whole test suite
# make lint      check the style of the code
# make bench     measure the speed of commands and, on PAIRS (a table of photographs and paintings), the quality of live
# make quality   compare live and the models in QUALITY on PAIRS, judged by VGG-19, and write docs/quality.md
# make gallery   make docs/gallery.jpg anew
# make models    train what is bundled, from the pictures in DATA; make styles encodes the named styles anew
# make completions   generate the shell completions from the commands
#
# All of them work in .venv, which is made as needed from python3 (PYTHON=python3.12 takes another).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test lint bench quality gallery models styles completions
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
ST := bin/st

.DEFAULT_GOAL := demo

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "styletools needs Python 3.10 or newer; say make PYTHON=...")'
	@echo "Making $(VENV): PyTorch is large, which takes a few minutes the first time."
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,test]'
	@touch $@

# ---- demo ----

STYLES ?= great-wave starry-night the-scream
# A photograph that lies in the scikit-image package itself; nothing of it is run or downloaded.
BUNDLED = $(shell $(VENV)/bin/python -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("skimage").origin))')/data/coffee.png

demo: $(READY)
	@mkdir -p demo
	@photo=$${PHOTO:-$(BUNDLED)}; start=$$SECONDS; \
	for style in $(STYLES); do \
	    $(ST)-apply -s "$$style" "$$photo" -o "demo/$$style.jpg"; \
	    echo "demo/$$style.jpg"; \
	done; \
	echo "$$photo in $(words $(STYLES)) styles took $$((SECONDS - start)) seconds; the pictures are in $(CURDIR)/demo"

# ---- checks ----

test: $(READY)
	$(VENV)/bin/python -m pytest $(TESTS)

lint: $(READY)
	$(VENV)/bin/python -m ruff check .

bench: $(READY)
	$(VENV)/bin/python bench/speed.py
	$(if $(PAIRS),$(VENV)/bin/python bench/quality.py $(PAIRS) $(BENCH))

# QUALITY: further models, as bench/tables.py takes them: -m NAME=MODEL --one STYLE=MODEL --few NAME=METHOD
quality: $(READY)
	$(VENV)/bin/python bench/tables.py $(PAIRS) $(QUALITY)

gallery: $(READY)
	$(VENV)/bin/python bench/gallery.py

completions: $(READY)
	@for command in $(notdir $(wildcard bin/st-*)); do \
	    variable=_$$(tr a-z- A-Z_ <<< "$$command")_COMPLETE; \
	    mkdir -p completions/{bash,zsh,fish}; \
	    env "$$variable=bash_source" "bin/$$command" > "completions/bash/$$command" || [ $$? = 141 ]; \
	    env "$$variable=zsh_source" "bin/$$command" > "completions/zsh/_$$command" || [ $$? = 141 ]; \
	    env "$$variable=fish_source" "bin/$$command" > "completions/fish/$$command.fish" || [ $$? = 141 ]; \
	done

# ---- the bundled models ----
# Hours on a CPU, less on a GPU. DATA holds train/photos, train/paintings and the pictures that zoo/works.tsv names. The
# weights of VGG-19 and cd16x are found through STYLETOOLS_WEIGHTS. An interrupted run goes on where it was; remove
# runs/ to begin anew.

DATA ?= data
TRAIN := $(DATA)/train
SLIM ?= --steps 1300 --batch-size 8 --crop-size 160,192 --schedule trapezoid --ema 0.995
# live learns most of it from slim, ten times as fast, and ends with VGG-19 itself as judge.
LIVE ?= --steps 8000 --batch-size 4 --crop-size 192,192,256 --schedule trapezoid
FINISH ?= --steps 9000 --batch-size 4 --crop-size 192,192,256 --schedule cosine -O backbone=vgg19 -O lr=8e-4
PAINTED := --style "$(TRAIN)/paintings/aic_*:3" --style "$(TRAIN)/paintings/st_*:3" \
    --style "$(TRAIN)/paintings/cn_*:2" --style "$(TRAIN)/paintings/rijks_*:1" --style "$(TRAIN)/photos:1"
ZOO := styletools/zoo
RESUME = $$([ -e runs/$(1).resume.pt ] && echo --resume || echo $(2))

models: $(READY)
	export STYLETOOLS_WEIGHTS=$${STYLETOOLS_WEIGHTS:-$(DATA)/weights}; \
	$(ST)-train distill -o runs/slim.safetensors $(call RESUME,slim) $(SLIM) --half \
	    --images "$(TRAIN)/photos:5" --images "$(TRAIN)/paintings/aic_*:2" --images "$(TRAIN)/paintings/cn_*:1" \
	    --images "$(TRAIN)/paintings/st_*:1" --images "$(TRAIN)/paintings/rijks_*:1" \
	    --licence "CC BY 4.0; distilled from VGG-19 of Oxford's Visual Geometry Group, and Collaborative Distillation"
	cp runs/slim.safetensors $(ZOO)/slim.safetensors
	$(ST)-train live -o runs/live-first.safetensors $(call RESUME,live-first) $(LIVE) \
	    --content "$(TRAIN)/photos" $(PAINTED)
	$(ST)-train live -o runs/live.safetensors $(call RESUME,live,--init runs/live-first.safetensors) $(FINISH) --half \
	    --content "$(TRAIN)/photos" $(PAINTED) --licence "MIT; its encoder starts from slim (CC BY 4.0)"
	cp runs/live.safetensors $(ZOO)/live.safetensors
	$(ST)-model export live -o $(ZOO)/live.onnx
	$(MAKE) styles

# The named styles: a picture of each work, called as its style, becomes a record, and is fitted to photographs.
styles: $(READY)
	@rm -rf runs/works && mkdir -p runs/works
	tail -n +2 $(ZOO)/works.tsv | while IFS=$$'\t' read -r name file _; do \
	    cp "$(DATA)/$$file" "runs/works/$$name.$${file##*.}"; \
	done
	export STYLETOOLS_WEIGHTS=$${STYLETOOLS_WEIGHTS:-$(DATA)/weights}; \
	$(ST)-gram --for live --refine "$(TRAIN)/photos" --each runs/works/ -o $(ZOO)/styles.safetensors
