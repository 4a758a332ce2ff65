"""treewarden: a durable life cycle for every file in the directory trees it watches."""

__version__ = "0.1.0"
