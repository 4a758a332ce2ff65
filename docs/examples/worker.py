#!/usr/bin/env python3
"""A worker for treewarden: counts the lines of one file after the other."""

import base64
import json
import sys


def handle(request):
    path = request["path"]
    if "path_b64" in request:  # the name is not UTF-8
        path = base64.b64decode(request["path_b64"])
    try:
        with open(path, "rb") as file:
            return {"outcome": "success", "result": {"lines": sum(1 for _ in file)}}
    except OSError as error:
        return {"outcome": "retry", "error": str(error)}


for line in sys.stdin:
    request = json.loads(line)
    if "ping" in request:
        answer = {"pong": request["ping"]}
    else:
        answer = {"id": request["id"], **handle(request)}
    print(json.dumps(answer), flush=True)
