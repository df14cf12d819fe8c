# make demo   from nothing to a GPT that writes Portuguese: install, prepare, train for about three minutes, sample
# make autor TEXTOS=folder   the same with your own .txt files
# make test   from nothing to the tests: install, lint, pytest
# make clean  remove .venv and the demo's run

PYTHON ?= python3
PY = .venv/bin/python
ECA = data/ecadequeiuroz_char

.PHONY: demo autor test clean

demo: .venv/runtime
	$(PY) $(ECA)/prepare.py
	$(PY) train.py config/train_eca_char_laptop.py
	$(PY) sample.py --out_dir=out-eca-char-laptop --num_samples=3
	@echo 'and the model in assets/eca-mini, which has read all of Eça for longer:'
	$(PY) sample.py --out_dir=assets/eca-mini --num_samples=2

autor: .venv/runtime
	$(PY) data/autor_char/prepare.py $(TEXTOS)
	$(PY) train.py config/train_autor_char.py
	$(PY) sample.py --out_dir=out-autor-char --num_samples=3

test: .venv/dev
	.venv/bin/ruff check .
	$(PY) -m pytest -ra --durations=10 -n auto --dist worksteal

clean:
	rm -rf .venv out-eca-char-laptop

# each stamp is newer than its requirements file once they are installed, so a second make installs nothing
.venv/runtime: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 15) and "Python 3.11 to 3.15 is needed, for which torch is built; this is %d.%d: make PYTHON=python3.14" % v)'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: .venv/runtime requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
