"""Started by common/env/bridge_link.c: run.py SOCKET PARENT_PID. Serves one environment."""
import os
import sys

_here = sys.path[0]
_keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
import tdmpc2_bridge.serve as serve  # noqa: E402  (found beside this file)
import tdmpc2_bridge.suites  # noqa: E402,F401
sys.dont_write_bytecode = _keep
# The user's modules are found where the program was started, as with `python -m`.
sys.path[sys.path.index(_here)] = os.getcwd()

if __name__ == "__main__":
    sys.exit(serve.main(sys.argv))
