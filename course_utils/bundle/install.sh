#!/bin/sh
# Finds a Python that fits and leaves the rest to install.py: sh install.sh [FOLDER]
here=$(cd "$(dirname "$0")" && pwd)
for python in python@PYTHON@ python3 python; do
  if "$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "@PYTHON@")' 2>/dev/null; then
    exec "$python" "$here/install.py" "$@"
  fi
done
for python in python3 python; do # none fits: one of them says so in words
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then
    exec "$python" "$here/install.py" "$@"
  fi
done
echo "There is no Python here. Install Python @PYTHON@ and run this again." >&2
exit 2
