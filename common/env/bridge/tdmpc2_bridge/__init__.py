"""The Python side of the bridge: one environment, one process, one socket. See ../../README.md."""
