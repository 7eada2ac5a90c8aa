#!/bin/sh
# Builds wheel and sdist; for each Python builds the sdist again into a wheel, which must be the same file by file, installs that
# with the extras signals and deploy into an environment of its own, tries it, and says what it took.
# Usage: scripts/check_wheel.sh [PYTHON...]   (default: python3; a Python without venv or pip is refused by its own words)
#
# Nothing of this source tree can be imported meanwhile: every step runs in an empty folder, so a file that MANIFEST.in or
# package-data lacks is missed here. One installation with torch for GPUs takes 6 GB. PIP_CONSTRAINT is kept where it is set.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/check-wheel-XXXXXX")
trap 'rm -rf "$work"' EXIT
export PIP_CONSTRAINT="${PIP_CONSTRAINT:-$here/constraints.txt}" PIP_DISABLE_PIP_VERSION_CHECK=1
export PHOROPTER_CACHE="$work/cache" PYTHONNOUSERSITE=1
unset PYTHONPATH || true
[ $# -gt 0 ] || set -- python3

"$1" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build
"$work/build/bin/python" -m build --quiet --outdir "$work/dist" "$here"
ls -l "$work/dist"

list_digests() { # PYTHON WHEEL: a line for each file in it, with its digest
    "$1" - "$2" <<'PYTHON'
import hashlib, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    for name in sorted(wheel.namelist()):
        print(hashlib.sha256(wheel.read(name)).hexdigest(), name)
PYTHON
}

try_install() { # PYTHON
    rm -rf "$work/env" "$work/empty" "$work/again" && mkdir "$work/empty" && cd "$work/empty"
    "$1" -m venv "$work/env"
    "$work/env/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/again" "$work"/dist/*.tar.gz
    list_digests "$1" "$work"/dist/*.whl >built
    list_digests "$1" "$work"/again/*.whl >again
    diff built again || { echo "the sdist makes another wheel than the one that was built"; exit 1; }
    began=$(date +%s)
    "$work/env/bin/pip" install --quiet "$(ls "$work"/again/*.whl)[signals,deploy]"
    took=$(($(date +%s) - began))
    "$work/env/bin/pip" check
    PATH="$work/env/bin:$PATH"
    phoropter demo -j 2 -o demo >demo.log || { cat demo.log; exit 1; }
    tail -n 2 demo.log
    phoropter refit demo -o bundle --examples 4 -q
    phoropter predict bundle bundle/examples -o predictions.csv -q
    phoropter export bundle -o model.onnx --study demo
    python - <<'PYTHON'
import csv, onnxruntime
rows = list(csv.DictReader(open("predictions.csv")))
assert len(rows) == 4, rows
onnxruntime.InferenceSession("model.onnx")
PYTHON
    echo "$("$1" --version): the sdist makes the same wheel; installed in $took s, $(du -sm "$work/env" | cut -f1) MB;" \
        "of it torch $(du -sm "$work"/env/lib/python3*/site-packages/torch | cut -f1) MB"
}

for python in "$@"; do
    try_install "$python"
done
