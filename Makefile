# make          what the programs need: .venv/ with the dependencies of setup.cfg
# make run      a small mail system to look at and talk to, in run/ (or RUN=DIR)
# make test     the tests (TESTS=tests/unit for some of them)
# make crash    crashes, power cuts and faults at every system call: all states, not CI's choice (a while)
# make bench    measurements
# make soak     ten minutes of mail while programs are killed: SOAK_SECONDS, SOAK_RATE, SOAK_PAUSE, SOAK_SEED,
#               SOAK_SYSTEM=1 (system homes, an account, also STOP, HUP, no descriptors; for root)
# make lint     ruff, mypy and mandoc, those that are installed
# make install  programs and manuals below PREFIX, for the interpreter PYTHON. The dependencies are copied from .venv/,
#               or from PACKAGES=DIR, a site-packages directory; PACKAGES=system: PYTHON has them
# make uninstall  removes what make install put below PREFIX, and nothing else

PYTHON = python3
PREFIX = /usr/local
DESTDIR =
PACKAGES = $(firstword $(wildcard .venv/lib/python3.*/site-packages))
RUN = run
TESTS =
python = .venv/bin/python
# tests of parts, on all processors; of crashes, in the background; of whole programs, which wait more than they
# work, two files at a time
crashes = tests/e2e/test_crash_points.py tests/e2e/test_faults.py tests/e2e/test_power_cut.py
parts = $(python) -m pytest -q -n auto --dist worksteal tests/unit tests/property
programs = $(python) -m pytest -n 2 --dist loadgroup tests/e2e $(crashes:%=--ignore=%)
# $(call needs,SECTION,OPTION): the words of an option in setup.cfg
needs = $(shell $(PYTHON) -c 'import configparser as c, shlex; f = c.ConfigParser(); \
	f.read("setup.cfg"); print(shlex.join(f["$(1)"]["$(2)"].split()))')

setup: .venv/.setup
	@$(python) -m compileall -q lib

.venv/.setup: setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo '$(PYTHON) is older than 3.11: say make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@[ -x .venv/bin/pip ] || $(PYTHON) -m venv .venv >/dev/null || $(MAKE) --no-print-directory venv-without-ensurepip
	$(python) -m pip install -q --disable-pip-version-check --use-pep517 $(call needs,options,install_requires)
	@touch $@

.venv/.test: .venv/.setup
	$(python) -m pip install -q --disable-pip-version-check $(call needs,options.extras_require,test)
	@touch $@

test: setup .venv/.test
ifeq ($(TESTS),)
	@mkdir -p build; rm -f build/crashes.ok
	@{ $(python) -m pytest $(crashes) >build/crashes.log 2>&1 && touch build/crashes.ok; } & \
	$(parts); parts=$$?; $(programs); programs=$$?; \
	wait; cat build/crashes.log; [ $$parts = 0 ] && [ $$programs = 0 ] && [ -e build/crashes.ok ]
else
	$(python) -m pytest $(TESTS)
endif

run: setup
	@PYTHONPATH=lib exec $(python) -m mqmail.demo $(RUN)

crash: setup .venv/.test
	MQMAIL_CRASH=all $(python) -m pytest -sv $(crashes)

bench: setup
	$(python) bench/bench.py

soak: setup .venv/.test
	@PYTHONPATH=lib:tests $(python) tests/soak.py

install:
	@PYTHONPATH=lib $(PYTHON) -B -m mqmail.install install '$(PREFIX)' '$(DESTDIR)' '$(PACKAGES)'

uninstall:
	@PYTHONPATH=lib $(PYTHON) -B -m mqmail.install uninstall '$(PREFIX)' '$(DESTDIR)'

lint:
	! command -v ruff || ruff check
	! command -v mypy || mypy
	! command -v mandoc || mandoc -T lint -W warning man/*

clean:
	rm -rf .venv build

# Debian's python3 comes without ensurepip: take pip from the package index.
venv-without-ensurepip:
	@rm -rf .venv
	@$(PYTHON) -m venv --without-pip .venv && $(python) -c "$$GET_PIP" || \
	    { rm -rf .venv; echo 'no virtual environment: apt-get install python3-venv' >&2; exit 1; }

define GET_PIP
import os, re, ssl, subprocess, sys, urllib.parse, urllib.request
page = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
trust = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
def get(url):
    try:
        return urllib.request.urlopen(url, timeout=60, context=trust).read()
    except OSError as error:
        sys.exit(f"{url}: {error}")
links = re.findall(r'href="([^"#]*/pip-[0-9.]+-py3-none-any\.whl)', get(page).decode())
link = max(links, key=lambda text: [int(n) for n in text.split("/pip-")[1].split("-")[0].split(".")])
wheel = os.path.join(".venv", link.rpartition("/")[2])
with open(wheel, "wb") as file:
    file.write(get(urllib.parse.urljoin(page, link)))
sys.exit(subprocess.call([sys.executable, wheel + "/pip", "install", "-q", "--no-index", wheel]))
endef
export GET_PIP

.PHONY: setup test run crash bench soak install uninstall lint clean venv-without-ensurepip
