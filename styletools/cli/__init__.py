"""The commands: words and click, never a tensor. One file each."""

import importlib.util
import sys

if importlib.util.find_spec("click") is None:  # a checkout that was never set up; nothing here would work
    sys.stderr.write("styletools: click and other packages are missing: say make in the checkout, or pip install it\n")
    sys.exit(69)
